//! The little of RFC 6455 that a client needs: frames to write, and the frames in what was read.

use std::io;

use bytes::{Buf, BytesMut};

/// The largest frame that is taken: a page of history has 1 MiB.
const FRAME_MAX: usize = 8 * 1024 * 1024;

/// What came in one frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A packet of Engine.IO.
    Text(BytesMut),
    /// To be answered by a pong with the same bytes.
    Ping(BytesMut),
    /// The server closes.
    Close,
    /// A pong; nothing to do.
    Pong,
}

/// A frame as clients send it. The mask is zero: it hides nothing on a path without proxies, and costs the server the same.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 14);
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

/// A text frame.
pub fn text(payload: &str) -> Vec<u8> {
    frame(1, payload.as_bytes())
}

/// Takes the first whole frame out of what was read.
///
/// Errors where the server breaks the protocol: frames in pieces, with a mask, or larger than 8 MiB.
pub fn next(buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
    let refuse = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    let [first, second, ..] = buffer[..] else {
        return Ok(None);
    };
    if first & 0x80 == 0 || first & 0x70 != 0 {
        return refuse("a frame in pieces, or of an extension");
    }
    if second & 0x80 != 0 {
        return refuse("a server must not mask");
    }
    let (head, length) = match second & 0x7F {
        126 => match buffer[2..] {
            [a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
            _ => return Ok(None),
        },
        127 => match buffer.get(2..10).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()) {
            Some(bytes) => (10, usize::try_from(u64::from_be_bytes(bytes)).unwrap_or(usize::MAX)),
            None => return Ok(None),
        },
        short => (2, usize::from(short)),
    };
    if length > FRAME_MAX {
        return refuse("a frame of more than 8 MiB");
    }
    if buffer.len() < head + length {
        return Ok(None);
    }
    buffer.advance(head);
    let payload = buffer.split_to(length);
    Ok(Some(match first & 0x0F {
        1 => Frame::Text(payload),
        8 => Frame::Close,
        9 => Frame::Ping(payload),
        10 => Frame::Pong,
        _ => return refuse("a binary frame"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same frame as a server sends it.
    fn served(payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame(1, payload);
        bytes[1] &= 0x7F;
        let mask = match payload.len() {
            0..=125 => 2,
            126..=0xFFFF => 4,
            _ => 10,
        };
        bytes.drain(mask..mask + 4);
        bytes
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let bytes = served(&payload);
            let mut buffer = BytesMut::new();
            for (index, byte) in bytes.iter().enumerate() {
                assert_eq!(next(&mut buffer).unwrap(), None, "{length} at {index}");
                buffer.extend_from_slice(&[*byte]);
            }
            buffer.extend_from_slice(&served(b"2"));
            assert_eq!(
                next(&mut buffer).unwrap(),
                Some(Frame::Text(BytesMut::from(&payload[..])))
            );
            assert_eq!(next(&mut buffer).unwrap(), Some(Frame::Text(BytesMut::from(&b"2"[..]))));
            assert_eq!(next(&mut buffer).unwrap(), None);
        }
    }

    #[test]
    fn what_no_server_may_send_is_refused() {
        for bytes in [&[0x01, 0][..], &[0xC1, 0], &[0x81, 0x80, 0, 0, 0, 0], &[0x82, 0]] {
            assert!(next(&mut BytesMut::from(bytes)).is_err(), "{bytes:?}");
        }
        let huge = [0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0];
        assert!(next(&mut BytesMut::from(&huge[..])).is_err());
    }
}
