//! The way of a member into its room: the connection, its upgrade, CONNECT and `join`.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::incoming::{code, is_ok};
use super::member::{Member, READ, broken};
use super::wire::{self, Frame};

/// The head of the answer to an upgrade.
const HEAD_MAX: usize = 16 * 1024;
/// The ack id of `join`; messages have their number and more.
const JOIN_ACK: u32 = 0;
/// What the system keeps for a slow reader, bytes: as little as it allows, so that the server notices.
const SLOW_BUFFER: u32 = 4096;
/// Bytes of a slow reader's segments, as on a network of phones: with the 64 KiB of the loopback interface the server's
/// system would keep megabytes for it.
const SLOW_SEGMENT: u32 = 1400;

impl Member {
    pub(super) async fn open_websocket(&self, buffer: &mut BytesMut) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if self.is_slow() {
            socket.set_recv_buffer_size(SLOW_BUFFER)?;
            socket2::SockRef::from(&socket).set_tcp_mss(SLOW_SEGMENT)?;
        }
        socket.bind(SocketAddr::new(self.seat.from.into(), 0))?;
        let mut stream = socket.connect(self.seat.server).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.seat.server
        );
        stream.write_all(request.as_bytes()).await?;
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
    pub(super) async fn enter(
        &self,
        reader: &mut (impl tokio::io::AsyncRead + Unpin),
        buffer: &mut BytesMut,
    ) -> io::Result<()> {
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
}
