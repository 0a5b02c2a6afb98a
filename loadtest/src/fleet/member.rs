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
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::mark::Mark;
use super::tally::Tally;
use super::view::{Seen, View};
use super::wire::{self, Frame};

/// From dialling to the answer to `join`; a server that is slower than this is not usable.
const ENTRY_MAX: Duration = Duration::from_secs(30);
/// What one read takes; most events are smaller.
const READ: usize = 2048;
/// What the system keeps for one that reads slowly, bytes: a large buffer would read for it.
const SLOW_BUFFER: u32 = 4096;
/// The head of the answer to an upgrade.
const HEAD_MAX: usize = 16 * 1024;
/// The ack id of `join`; messages have their number and more.
const JOIN_ACK: u32 = 0;

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
    /// How fast it reads once it is in its room, bytes a second; `None`: as fast as it can.
    pub reads: Option<u32>,
}

/// A member of the fleet.
#[derive(Debug)]
pub struct Member {
    /// Its index in the fleet, which its messages carry.
    pub index: u32,
    /// Where it sits.
    pub seat: Seat,
    /// What tells its fleet from others.
    fleet: u32,
    tally: Arc<Tally>,
    writer: tokio::sync::Mutex<Option<OwnedWriteHalf>>,
    joined: AtomicBool,
    /// It leaves on purpose.
    leaving: AtomicBool,
    sent: AtomicU32,
    /// Messages without an ack, with when they were meant to go.
    open: Mutex<Vec<(u32, u64)>>,
    /// Messages that were refused, or whose connection broke before their ack: nobody must have them.
    refused: Mutex<HashSet<u32>>,
    view: Mutex<View>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

impl Member {
    pub(super) fn new(fleet: u32, index: u32, seat: Seat, tally: Arc<Tally>) -> Self {
        Self {
            index,
            seat,
            fleet,
            tally,
            writer: tokio::sync::Mutex::new(None),
            joined: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            sent: AtomicU32::new(0),
            open: Mutex::default(),
            refused: Mutex::default(),
            view: Mutex::default(),
        }
    }

    /// Whether it is in its room.
    pub fn is_joined(&self) -> bool {
        self.joined.load(Ordering::Relaxed)
    }

    /// How many messages it has sent.
    pub fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Messages of its own that have neither ack nor refusal.
    pub fn open(&self) -> usize {
        lock(&self.open).len()
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

    /// Connects, joins, and stays until the connection ends; `entered` is told when it is in its room.
    pub(super) async fn stay(self: &Arc<Self>, entered: impl FnOnce()) {
        self.leaving.store(false, Ordering::Relaxed);
        let outcome = self.live(entered).await;
        *self.writer.lock().await = None;
        if self.joined.swap(false, Ordering::Relaxed) {
            self.tally.joined.fetch_sub(1, Ordering::Relaxed);
        }
        // Nobody can know what became of them; their copies are judged where they come.
        let open = std::mem::take(&mut *lock(&self.open));
        lock(&self.refused).extend(open.into_iter().map(|(number, _)| number));
        if self.leaving.load(Ordering::Relaxed) {
            return;
        }
        self.tally.dropped.fetch_add(1, Ordering::Relaxed);
        if self.seat.reads.is_some() {
            self.tally.slow_cut.fetch_add(1, Ordering::Relaxed);
            return;
        }
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
            buffer.reserve(READ);
            let read = reader.read_buf(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            if let Some(rate) = self.seat.reads
                && !self.tally.hurry.load(Ordering::Relaxed)
            {
                sleep(Duration::from_secs_f64(read as f64 / f64::from(rate))).await;
            }
        }
    }

    async fn open_websocket(&self, buffer: &mut BytesMut) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.seat.from.into(), 0))?;
        if self.seat.reads.is_some() {
            socket.set_recv_buffer_size(SLOW_BUFFER)?;
        }
        let mut stream = socket.connect(self.seat.server).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.seat.server
        );
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await?;
        loop {
            if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = buffer.split_to(end + 4);
                let status = head[..].split(|byte: &u8| *byte == b' ').nth(1).unwrap_or_default();
                if status == b"101" {
                    return Ok(stream);
                }
                return Err(broken(format!("HTTP {}", String::from_utf8_lossy(status))));
            }
            if buffer.len() > HEAD_MAX || stream.read_buf(buffer).await? == 0 {
                return Err(broken("no answer to the upgrade"));
            }
        }
    }

    /// From the open packet to the answer to `join`.
    async fn enter(&self, reader: &mut (impl tokio::io::AsyncRead + Unpin), buffer: &mut BytesMut) -> io::Result<()> {
        let join = format!(r#"42{JOIN_ACK}["join",{{"roomID":"{}"}}]"#, self.seat.room);
        loop {
            while let Some(frame) = wire::next(buffer)? {
                let Frame::Text(packet) = &frame else {
                    if !self.take(frame).await? {
                        return Err(broken("closed before the join"));
                    }
                    continue;
                };
                if packet.starts_with(b"0") {
                    self.write(&wire::text(&format!("40{}", self.seat.auth))).await?;
                } else if packet.starts_with(b"40") {
                    self.write(&wire::text(&join)).await?;
                } else if packet.starts_with(b"44") {
                    return Err(broken(format!("refused: {}", code(packet))));
                } else if packet.starts_with(b"430[") {
                    return match is_ok(packet) {
                        true => Ok(()),
                        false => Err(broken(format!("join: {}", code(packet)))),
                    };
                } else if !self.take(frame).await? {
                    return Err(broken("closed before the join"));
                }
            }
            buffer.reserve(READ);
            if reader.read_buf(buffer).await? == 0 {
                return Err(broken("closed before the join"));
            }
        }
    }

    /// Handles a frame; `false` when it ends the connection.
    async fn take(&self, frame: Frame) -> io::Result<bool> {
        match frame {
            Frame::Text(packet) => match &packet[..] {
                b"2" => self.write(&wire::text("3")).await?,
                [b'4', b'2', event @ ..] => self.event(event),
                [b'4', b'3', ack @ ..] => self.ack(ack),
                [b'1'] | [b'4', b'1', ..] => return Ok(false),
                _ => {}
            },
            Frame::Ping(payload) => self.write(&wire::frame(10, &payload)).await?,
            Frame::Close => return Ok(false),
            Frame::Pong => {}
        }
        Ok(true)
    }

    fn event(&self, event: &[u8]) {
        if event.starts_with(br#"["message","#) {
            let Some((mark, _)) = Mark::find(event).filter(|(mark, _)| mark.fleet == self.fleet) else {
                return;
            };
            let now = self.tally.clock.now();
            if self.seat.reads.is_none() {
                self.tally.received.fetch_add(1, Ordering::Relaxed);
                self.tally.delivery.record(self.index, now.saturating_sub(mark.meant));
            }
            match lock(&self.view).note(mark) {
                Seen::New => {}
                Seen::Again => drop(self.tally.doubled.fetch_add(1, Ordering::Relaxed)),
                Seen::Late => drop(self.tally.disordered.fetch_add(1, Ordering::Relaxed)),
            }
        } else if event.starts_with(br#"["previousMessages","#) {
            // History overlaps with what it has.
            let (mut view, mut rest) = (lock(&self.view), event);
            while let Some((mark, end)) = Mark::find(rest) {
                // What an earlier run said must neither count as said again nor stand for what is lost now.
                if mark.fleet == self.fleet {
                    view.note(mark);
                }
                rest = &rest[end..];
            }
        }
    }

    fn ack(&self, ack: &[u8]) {
        let digits = ack.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = std::str::from_utf8(&ack[..digits])
            .ok()
            .and_then(|text| text.parse().ok());
        let Some(number) = number else { return };
        let mut open = lock(&self.open);
        let Some(at) = open.iter().position(|(open, _)| *open == number) else {
            return;
        };
        let (_, meant) = open.swap_remove(at);
        drop(open);
        if is_ok(ack) {
            self.tally.acked.fetch_add(1, Ordering::Relaxed);
            let took = self.tally.clock.now().saturating_sub(meant);
            self.tally.ack.record(self.index, took);
        } else {
            lock(&self.refused).insert(number);
            self.tally.refused(&code(ack));
        }
    }

    /// Sends a message that was meant to go at `meant`, Unix µs.
    pub async fn send(&self, meant: u64, bytes: usize) -> io::Result<()> {
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
        let packet = format!(
            r#"42{number}["message",{{"roomID":"{}","message":"{}"}}]"#,
            self.seat.room,
            mark.text(bytes)
        );
        lock(&self.open).push((number, meant));
        self.tally.sent.fetch_add(1, Ordering::Relaxed);
        tokio::io::AsyncWriteExt::write_all(writer, &wire::text(&packet)).await
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match self.writer.lock().await.as_mut() {
            Some(writer) => tokio::io::AsyncWriteExt::write_all(writer, bytes).await,
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// Whether an ack says yes; servers without a word on it confirm by answering.
fn is_ok(ack: &[u8]) -> bool {
    !contains(ack, br#""ok":false"#)
}

/// The error code in a packet, or its beginning.
fn code(packet: &[u8]) -> String {
    const NAME: &[u8] = br#""code":""#;
    let from = packet.windows(NAME.len()).position(|part| part == NAME);
    let text = from.map_or(packet, |from| &packet[from + NAME.len()..]);
    let text = text.split(|byte| *byte == b'"').next().unwrap_or_default();
    String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
