//! Where the bytes that the engine writes stand: between two websocket frames, or within one.
//!
//! Frames from a server are not masked and the engine splits no message, so a header says all that there is to know.

/// The longest beginning of a payload that is looked at: that of the mark.
const SEEN_MAX: usize = 16;
/// How the response begins after which frames follow.
const SWITCHING: &[u8] = b"HTTP/1.1 101";
/// How its head ends.
const HEAD_END: &[u8] = b"\r\n\r\n";
/// The answer to CONNECT: the first packet of a socket.
const CONNECTED: &[u8] = b"40";
/// An ack that no client asked for and all of them ignore: what [`super::super::reply::mark`] sends.
const MARK: &[u8] = b"432147483647[";

/// A packet that was written as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// The client was told that it is connected.
    Connected,
    /// The mark, behind which the engine has nothing of ours any more.
    Mark,
}

/// A place in the bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// HTTP, which is not looked at.
    Http,
    /// Before the response that switches protocols; so much of its beginning matched.
    Before(usize),
    /// In that response's head; so much of its end matched.
    Head(usize),
    /// In a header, of which there are so many bytes; with none, between two frames.
    Header(usize),
    /// In a payload, of which so much is still to come.
    Payload(u64),
}

/// Follows the bytes of one connection.
#[derive(Debug)]
pub struct Track {
    place: Place,
    /// A header; of a payload its beginning.
    seen: [u8; SEEN_MAX],
    kept: usize,
}

impl Default for Track {
    fn default() -> Self {
        Self {
            place: Place::Http,
            seen: [0; SEEN_MAX],
            kept: 0,
        }
    }
}

impl Track {
    /// The next response that switches protocols leads to a websocket.
    pub fn expect_switch(&mut self) {
        self.place = Place::Before(0);
    }

    /// Whether a frame of somebody else may be written now.
    pub fn is_between_frames(&self) -> bool {
        self.place == Place::Header(0)
    }

    /// Takes bytes that were written; `see` is told of each packet that matters once its last byte was among them.
    pub fn advance(&mut self, mut bytes: &[u8], mut see: impl FnMut(Sight)) {
        while let Some(first) = bytes.first().copied() {
            let mut taken = 1;
            self.place = match self.place {
                Place::Http => return,
                Place::Before(matched) => match follow(SWITCHING, matched, first) {
                    SWITCHED => Place::Head(0),
                    matched => Place::Before(matched),
                },
                Place::Head(matched) => match follow(HEAD_END, matched, first) {
                    ENDED => Place::Header(0),
                    matched => Place::Head(matched),
                },
                Place::Header(have) => {
                    self.seen[have] = first;
                    match payload_length(&self.seen[..=have]) {
                        None => Place::Header(have + 1),
                        Some(length) => {
                            self.kept = 0;
                            self.within(length, &mut see)
                        }
                    }
                }
                Place::Payload(left) => {
                    taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let wanted = taken.min(SEEN_MAX - self.kept);
                    self.seen[self.kept..self.kept + wanted].copy_from_slice(&bytes[..wanted]);
                    self.kept += wanted;
                    self.within(left - taken as u64, &mut see)
                }
            };
            bytes = &bytes[taken..];
        }
    }

    /// The place with so much of a payload to come; with none, its frame has ended.
    fn within(&self, left: u64, see: &mut impl FnMut(Sight)) -> Place {
        if left > 0 {
            return Place::Payload(left);
        }
        let payload = &self.seen[..self.kept];
        if payload.starts_with(MARK) {
            see(Sight::Mark);
        } else if payload.starts_with(CONNECTED) {
            see(Sight::Connected);
        }
        Place::Header(0)
    }
}

const SWITCHED: usize = SWITCHING.len();
const ENDED: usize = HEAD_END.len();

/// How much of `pattern` matches after one more byte; in both patterns only the first byte can begin a match anew.
fn follow(pattern: &[u8], matched: usize, byte: u8) -> usize {
    if pattern.get(matched) == Some(&byte) {
        matched + 1
    } else {
        usize::from(pattern[0] == byte)
    }
}

/// The length of the payload that an unmasked header announces, once the header is whole (RFC 6455, 5.2).
fn payload_length(header: &[u8]) -> Option<u64> {
    let extended = |length: usize| {
        let bytes = header.get(2..2 + length)?;
        Some(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    match header.get(1)? & 0x7f {
        126 => extended(2),
        127 => extended(8),
        short => Some(short.into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::socket::frame;

    const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n";

    fn text(payload: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::push_text(&mut bytes, &[payload]);
        bytes
    }

    #[test]
    fn http_is_never_between_frames() {
        let mut track = Track::default();
        track.advance(HEAD, |_| panic!("nothing to see"));
        assert!(!track.is_between_frames());
        track.expect_switch();
        track.advance(b"HTTP/1.1 200 OK\r\n\r\nHTTP", |_| panic!("nothing to see"));
        assert!(!track.is_between_frames());
        track.advance(&HEAD[..HEAD.len() - 1], |_| panic!("nothing to see"));
        assert!(!track.is_between_frames());
        track.advance(b"\n", |_| panic!("nothing to see"));
        assert!(track.is_between_frames());
    }

    #[test]
    fn a_packet_is_seen_with_its_last_byte() {
        let mut track = Track::default();
        track.expect_switch();
        track.advance(HEAD, |_| panic!("nothing to see"));
        let bytes = text("40{\"sid\":\"a\"}");
        track.advance(&bytes[..bytes.len() - 1], |_| panic!("it is not whole"));
        let mut seen = None;
        track.advance(&bytes[bytes.len() - 1..], |sight| seen = Some(sight));
        assert_eq!(seen, Some(Sight::Connected));
    }

    proptest! {
        #[test]
        fn frames_are_followed_however_their_bytes_are_cut(
            lengths in prop::collection::vec(prop_oneof![0..4_usize, 120..130_usize, 65_530..65_540_usize], 1..6),
            cuts in prop::collection::vec(1..9_000_usize, 1..40),
        ) {
            let mut bytes = HEAD.to_vec();
            let mut ends = vec![bytes.len()];
            for length in &lengths {
                bytes.extend(text(&"4".repeat(*length)));
                ends.push(bytes.len());
                bytes.extend(text("432147483647[[]]"));
                ends.push(bytes.len());
            }
            let mut track = Track::default();
            track.expect_switch();
            let (mut at, mut marks, mut cuts) = (0, 0, cuts.iter().cycle());
            while at < bytes.len() {
                let end = bytes.len().min(at + cuts.next().copied().unwrap_or(1));
                track.advance(&bytes[at..end], |sight| {
                    assert_eq!(sight, Sight::Mark);
                    marks += 1;
                });
                at = end;
                prop_assert_eq!(track.is_between_frames(), ends.contains(&at));
            }
            prop_assert_eq!(marks, lengths.len());
        }
    }
}
