//! What a member makes of what comes: pings, events, acks.

use std::io;
use std::sync::atomic::Ordering;

use super::mark::Mark;
use super::member::{Member, lock};
use super::question::Key;
use super::view::Seen;
use super::wire::{self, Frame};

impl Member {
    /// Handles a frame; `false` when it ends the connection.
    pub(super) async fn take(&self, frame: Frame) -> io::Result<bool> {
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
            let Some((mark, _)) = Mark::find(event) else {
                return self.reply(event);
            };
            if mark.fleet != self.fleet {
                return;
            }
            let now = self.tally.clock.now();
            self.tally.received.fetch_add(1, Ordering::Relaxed);
            if !self.is_slow() {
                self.tally.delivery.record(self.index, now.saturating_sub(mark.meant));
            }
            match lock(&self.view).note(mark) {
                Seen::New => {}
                Seen::Again => drop(self.tally.doubled.fetch_add(1, Ordering::Relaxed)),
                Seen::Late => drop(self.tally.disordered.fetch_add(1, Ordering::Relaxed)),
            }
        } else if event.starts_with(br#"["gpt:delta","#) {
            let Some(key) = Key::find(event).filter(|key| key.asker == self.index) else {
                return;
            };
            if lock(&self.questions).piece(key.number) {
                let took = self.tally.clock.now().saturating_sub(key.meant);
                self.tally.first_delta.record(self.index, took);
            }
        } else if event.starts_with(br#"["gpt:error","#) {
            let (id, code) = (field(event, br#""id":""#), code(event));
            if id.is_some_and(|id| lock(&self.questions).failed(id, &code)) {
                self.tally.refused(&code);
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

    /// A message without a mark is a reply of the model.
    fn reply(&self, event: &[u8]) {
        let Some(key) = Key::find(event).filter(|key| key.asker == self.index) else {
            return;
        };
        let counter = match lock(&self.questions).replied(key.number) {
            true => &self.tally.replied,
            false => &self.tally.doubled,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The ack of a question says its id.
    fn question_acked(&self, number: u32, ack: &[u8]) {
        let mut questions = lock(&self.questions);
        if !questions.is_open(number) {
            return;
        }
        let failed = match (is_ok(ack), field(ack, br#""id":""#)) {
            (true, Some(id)) => questions.acked(number, id),
            _ => {
                questions.gone(number);
                None
            }
        };
        if let Some(code) = failed {
            self.tally.refused(&code);
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
        self.question_acked(number, ack);
        if is_ok(ack) {
            self.tally.acked.fetch_add(1, Ordering::Relaxed);
            let took = self.tally.clock.now().saturating_sub(meant);
            self.tally.ack.record(self.index, took);
        } else {
            lock(&self.refused).insert(number);
            self.tally.refused(&code(ack));
        }
    }
}

/// Whether an ack says yes; servers without a word on it confirm by answering.
pub(super) fn is_ok(ack: &[u8]) -> bool {
    !contains(ack, br#""ok":false"#)
}

/// The error code in a packet, or its beginning.
pub(super) fn code(packet: &[u8]) -> String {
    if let Some(code) = field(packet, br#""code":""#) {
        return code.to_owned();
    }
    String::from_utf8_lossy(&packet[..packet.len().min(60)]).into_owned()
}

/// The text of the first field of that name, which ends with `":"`.
fn field<'a>(packet: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let from = packet.windows(name.len()).position(|part| part == name)? + name.len();
    let text = packet[from..].split(|byte| *byte == b'"').next()?;
    std::str::from_utf8(text).ok()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
