//! One socket of a fleet: it connects, joins its room, answers pings, and notes every message that comes.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::{sleep, timeout};

use super::mark::Mark;
use super::pace::Pace;
use super::question::{Key, Questions};
use super::tally::Tally;
use super::view::View;
use super::wire;

/// From dialling to the answer to `join`; a server that is slower than this is not usable.
const ENTRY_MAX: Duration = Duration::from_secs(30);
/// What one read takes; most events are smaller.
pub(super) const READ: usize = 2048;
/// How long a slow reader stays away when the server has let it go.
const BACK_AFTER: Duration = Duration::from_secs(1);

/// Where a member sits.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The server.
    pub server: SocketAddr,
    /// The address to come from.
    pub from: Ipv4Addr,
    /// The room's name.
    pub room: Arc<str>,
    /// The payload of CONNECT, JSON.
    pub auth: Arc<str>,
    /// Bytes a second that it reads, where it reads slowly.
    pub slow: Option<u64>,
}

/// A member of the fleet.
#[derive(Debug)]
pub struct Member {
    /// Its index in the fleet, which its messages carry.
    pub index: u32,
    /// Where it sits.
    pub seat: Seat,
    /// What tells its fleet from others.
    pub(super) fleet: u32,
    pub(super) tally: Arc<Tally>,
    writer: tokio::sync::Mutex<Option<OwnedWriteHalf>>,
    joined: AtomicBool,
    /// From the start of its task to its end, also while a slow reader is on its way back.
    staying: AtomicBool,
    /// It leaves on purpose.
    leaving: AtomicBool,
    sent: AtomicU32,
    /// Messages without an ack, with when they were meant to go.
    pub(super) open: Mutex<Vec<(u32, u64)>>,
    /// Messages that were refused, or whose connection broke before their ack: nobody must have them.
    pub(super) refused: Mutex<HashSet<u32>>,
    pub(super) view: Mutex<View>,
    pace: Option<Pace>,
    pub(super) questions: Mutex<Questions>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn broken(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

impl Member {
    pub(super) fn new(fleet: u32, index: u32, seat: Seat, tally: Arc<Tally>) -> Self {
        Self {
            index,
            pace: seat.slow.map(Pace::new),
            seat,
            fleet,
            tally,
            writer: tokio::sync::Mutex::new(None),
            joined: AtomicBool::new(false),
            staying: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            sent: AtomicU32::new(0),
            open: Mutex::default(),
            refused: Mutex::default(),
            view: Mutex::default(),
            questions: Mutex::default(),
        }
    }

    /// Whether it reads slowly, or did: it does not write, and its latencies do not count.
    pub fn is_slow(&self) -> bool {
        self.pace.is_some()
    }

    /// A slow reader reads as others do from now on.
    pub(super) fn wake(&self) {
        if let Some(pace) = &self.pace {
            pace.wake();
        }
    }

    /// Whether it is in its room.
    pub fn is_joined(&self) -> bool {
        self.joined.load(Ordering::Relaxed)
    }

    /// Whether it has a task: it is in its room, or on its way there.
    pub(super) fn is_staying(&self) -> bool {
        self.staying.load(Ordering::Relaxed)
    }

    /// Before its task starts: `false` when it has one already.
    pub(super) fn may_stay(&self) -> bool {
        self.leaving.store(false, Ordering::Relaxed);
        !self.staying.swap(true, Ordering::Relaxed)
    }

    /// How many messages it has sent.
    pub fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Messages of its own that have neither ack nor refusal.
    pub fn open(&self) -> usize {
        lock(&self.open).len()
    }

    /// Questions of its own without an end.
    pub fn questions(&self) -> usize {
        lock(&self.questions).open()
    }

    /// How many messages of its own were refused, or may have been.
    pub fn refusals(&self) -> u64 {
        lock(&self.refused).len() as u64
    }

    /// Whether a message of its own was acked: others must have it.
    pub fn was_acked(&self, number: u32) -> bool {
        !lock(&self.refused).contains(&number) && !lock(&self.open).iter().any(|(open, _)| *open == number)
    }

    /// How many acked messages of `sender` never came.
    pub fn lost_of(&self, sender: &Self) -> u64 {
        let view = lock(&self.view);
        let lost = view.lost(sender.index, sender.sent());
        lost.filter(|number| sender.was_acked(*number)).count() as u64
    }

    /// Connects, joins, and stays until the connection ends; `entered` is told when it is in its room. A slow reader comes
    /// back until it leaves on purpose.
    pub(super) async fn stay(self: &Arc<Self>, entered: impl FnOnce()) {
        self.stay_once(entered).await;
        while self.is_slow() && !self.leaving.load(Ordering::Relaxed) {
            sleep(BACK_AFTER).await;
            self.stay_once(|| ()).await;
        }
        self.staying.store(false, Ordering::Relaxed);
    }

    async fn stay_once(self: &Arc<Self>, entered: impl FnOnce()) {
        let outcome = self.live(entered).await;
        *self.writer.lock().await = None;
        let was_in = self.joined.swap(false, Ordering::Relaxed);
        if was_in {
            self.tally.joined.fetch_sub(1, Ordering::Relaxed);
        }
        // Nobody can know what became of them; their copies are judged where they come.
        let open = std::mem::take(&mut *lock(&self.open));
        lock(&self.questions).forget();
        lock(&self.refused).extend(open.into_iter().map(|(number, _)| number));
        if self.leaving.load(Ordering::Relaxed) {
            return;
        }
        if was_in && self.is_slow() {
            // The server may let it go.
            self.tally.slow_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.tally.dropped.fetch_add(1, Ordering::Relaxed);
        let why = outcome.map_or_else(|error| error.to_string(), |()| "the server closed".to_owned());
        self.tally.refused(&why);
    }

    /// Closes the connection as a lost network would.
    pub async fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        *self.writer.lock().await = None;
    }

    async fn live(self: &Arc<Self>, entered: impl FnOnce()) -> io::Result<()> {
        let began = self.tally.clock.now();
        let mut buffer = BytesMut::new();
        let entry = async {
            let stream = self.open_websocket(&mut buffer).await?;
            let (mut reader, writer) = stream.into_split();
            *self.writer.lock().await = Some(writer);
            self.enter(&mut reader, &mut buffer).await?;
            Ok::<_, io::Error>(reader)
        };
        let entry = timeout(ENTRY_MAX, entry).await;
        let mut reader = entry.map_err(|_| broken("no entry within 30 s"))??;
        self.tally.connect.record(self.index, self.tally.clock.now() - began);
        self.joined.store(true, Ordering::Relaxed);
        self.tally.joined.fetch_add(1, Ordering::Relaxed);
        entered();
        loop {
            while let Some(frame) = wire::next(&mut buffer)? {
                if !self.take(frame).await? {
                    return Ok(());
                }
            }
            if buffer.is_empty() {
                // A page of history is not kept for the life of the socket.
                buffer = BytesMut::new();
            }
            let portion = match &self.pace {
                Some(pace) => pace.portion(READ as u64).await,
                None => READ as u64,
            };
            buffer.reserve(READ);
            if (&mut reader).take(portion).read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Sends a message that was meant to go at `meant`, Unix µs; with `asks` it is a question to the model.
    pub async fn send(&self, meant: u64, bytes: usize, asks: bool) -> io::Result<()> {
        // Under the lock, so that numbers go out in their order.
        let mut writer = self.writer.lock().await;
        let Some(writer) = writer.as_mut() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let number = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let mark = Mark {
            fleet: self.fleet,
            sender: self.index,
            number,
            meant,
        };
        let mut text = String::new();
        if asks {
            let key = Key {
                asker: self.index,
                number,
                meant,
            };
            text = key.text();
            lock(&self.questions).asked(number);
            self.tally.asked.fetch_add(1, Ordering::Relaxed);
        }
        text += &mark.text(bytes.saturating_sub(text.len()));
        let packet = format!(
            r#"42{number}["message",{{"roomID":"{}","message":"{text}"}}]"#,
            self.seat.room
        );
        lock(&self.open).push((number, meant));
        self.tally.sent.fetch_add(1, Ordering::Relaxed);
        tokio::io::AsyncWriteExt::write_all(writer, &wire::text(&packet)).await
    }

    pub(super) async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match self.writer.lock().await.as_mut() {
            Some(writer) => tokio::io::AsyncWriteExt::write_all(writer, bytes).await,
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}
