//! The direct way to a websocket: frames that are written between those of the engine, as a state machine without IO.
//!
//! A frame from a server is not masked, so an event is the same bytes for every member of a room: they are encoded once
//! and written where the event is handed out, without a queue, a copy and a task for each socket. Once a line is open
//! nothing of ours goes through the engine any more, so what we send keeps its order; until then it waits here, behind
//! what the engine still has. What the peer does not take at once waits here too, and goes before anything of the engine.

mod track;

use std::collections::VecDeque;
use std::io;

use bytes::{Buf, Bytes};

pub use self::track::Sight;
use self::track::Track;

/// Frames, or runs of them, that wait for a peer: as many as the engine's own queue holds. Beyond it the log takes over.
const WAITING_MAX: usize = 256;
/// Bytes that wait for a peer; a frame that finds nobody before it waits whatever its size.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// Why a frame was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSent {
    /// Too much waits already: the peer does not read.
    Full,
    /// The peer is gone.
    Gone,
}

/// Who writes frames on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// The engine alone.
    #[default]
    Engine,
    /// Ours wait until the engine has written this packet.
    Behind(Sight),
    /// Both.
    Open,
    /// Nobody any more.
    Ended,
}

/// The direct way of one connection.
#[derive(Debug, Default)]
pub struct Line {
    track: Track,
    phase: Phase,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
}

impl Line {
    /// The connection is about to switch to a websocket.
    pub fn expect_switch(&mut self) {
        self.track.expect_switch();
    }

    /// From now on frames of ours are sent here, behind a packet that the engine has or will have. `false` when the line
    /// is in use, or has ended.
    pub fn hold_behind(&mut self, packet: Sight) -> bool {
        let free = self.phase == Phase::Engine;
        if free {
            self.phase = Phase::Behind(packet);
        }
        free
    }

    /// Takes [`Self::hold_behind`] back: the engine did not take the packet.
    pub fn let_go(&mut self) {
        if matches!(self.phase, Phase::Behind(_)) && self.waiting.is_empty() {
            self.phase = Phase::Engine;
        }
    }

    /// The connection ends; what waits is lost with it.
    pub fn end(&mut self) {
        self.phase = Phase::Ended;
        self.waiting = VecDeque::new();
        self.waiting_bytes = 0;
    }

    /// Whether frames wait that only the peer holds up.
    pub fn is_blocked(&self) -> bool {
        self.may_write() && !self.waiting.is_empty()
    }

    fn may_write(&self) -> bool {
        self.phase == Phase::Open && self.track.is_between_frames()
    }

    /// Writes whole frames, or lets them wait.
    pub fn send(&mut self, frames: &Bytes, write: &dyn Fn(&[u8]) -> io::Result<usize>) -> Result<(), NotSent> {
        let is_full = self.waiting.len() >= WAITING_MAX || self.waiting_bytes + frames.len() > WAITING_BYTES_MAX;
        if is_full && !self.waiting.is_empty() {
            return Err(NotSent::Full);
        }
        self.send_or_wait(frames, write)
    }

    /// The same, and they wait however many do already: for a bounded number of frames, which nobody could send again.
    pub fn send_or_wait(&mut self, frames: &Bytes, write: &dyn Fn(&[u8]) -> io::Result<usize>) -> Result<(), NotSent> {
        if matches!(self.phase, Phase::Engine | Phase::Ended) {
            return Err(NotSent::Gone);
        }
        let mut written = 0;
        if self.waiting.is_empty() && self.may_write() {
            written = match write(frames) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => return Err(NotSent::Gone),
            };
        }
        if written < frames.len() {
            self.wait(frames.slice(written..));
        }
        Ok(())
    }

    fn wait(&mut self, frames: Bytes) {
        self.waiting_bytes += frames.len();
        self.waiting.push_back(frames);
    }

    /// Writes what waits, if it may be written now; an error when the peer takes no more of it.
    pub fn write_waiting(&mut self, write: impl Fn(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        if !self.may_write() {
            return Ok(());
        }
        while let Some(first) = self.waiting.front_mut() {
            let written = write(first)?;
            self.waiting_bytes -= written;
            first.advance(written);
            if first.is_empty() {
                self.waiting.pop_front();
            }
        }
        // A backlog is rare, and a socket lives long.
        self.waiting = VecDeque::new();
        Ok(())
    }

    /// Writes bytes of the engine, behind what waits and before what has waited for these.
    pub fn write_engine(&mut self, bytes: &[u8], write: impl Fn(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        self.write_waiting(&write)?;
        let written = write(bytes)?;
        let phase = &mut self.phase;
        self.track.advance(&bytes[..written], |sight| {
            if *phase == Phase::Behind(sight) {
                *phase = Phase::Open;
            }
        });
        // Whoever looks after what waits will hear of an error by its own write.
        let _blocked = self.write_waiting(&write);
        Ok(written)
    }
}

#[cfg(test)]
mod tests;
