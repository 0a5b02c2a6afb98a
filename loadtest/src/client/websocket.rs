//! The websocket transport, with a handshake of our own: a refusal keeps its whole body, and the socket its options.

use std::net::SocketAddr;

use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::address::Address;
use super::{Builder, ConnectError};
use crate::packet::{EnginePacket, Handshake};

pub(super) type Ws = WebSocketStream<TcpStream>;

/// Per connection and allocated eagerly; thousands of clients live in one process.
const READ_BUFFER: usize = 4096;

/// No honest answer to a handshake is longer.
const MAX_RESPONSE: usize = 64 * 1024;

fn transport(error: impl ToString) -> ConnectError {
    ConnectError::Transport(error.to_string())
}

/// Opens a session by websocket.
pub(super) async fn open(address: &Address, builder: &Builder) -> Result<(Ws, Handshake), ConnectError> {
    let mut ws = upgrade(address, builder, None).await?;
    let first = next_text(&mut ws).await?;
    match EnginePacket::parse(&first) {
        Ok(EnginePacket::Open(handshake)) => Ok((ws, handshake)),
        _ => Err(transport(format!("no open packet but {first:?}"))),
    }
}

/// Opens a websocket for an existing session and has the server confirm it.
pub(super) async fn probe(address: &Address, builder: &Builder, sid: &str) -> Result<Ws, ConnectError> {
    use futures::SinkExt;
    let mut ws = upgrade(address, builder, Some(sid)).await?;
    ws.send(Message::text("2probe")).await.map_err(transport)?;
    match next_text(&mut ws).await?.as_str() {
        "3probe" => Ok(ws),
        other => Err(transport(format!("no 3probe but {other:?}"))),
    }
}

async fn next_text(ws: &mut Ws) -> Result<String, ConnectError> {
    match ws.next().await {
        Some(Ok(Message::Text(text))) => Ok(text.as_str().to_owned()),
        Some(Ok(other)) => Err(transport(format!("unexpected frame: {other:?}"))),
        Some(Err(error)) => Err(transport(error)),
        None => Err(transport("closed")),
    }
}

async fn dial(address: &Address, builder: &Builder) -> Result<TcpStream, ConnectError> {
    let mut last = transport("the host has no address");
    for peer in tokio::net::lookup_host(address.host_port()).await.map_err(transport)? {
        let connect = async {
            let socket = if peer.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            if let Some(bytes) = builder.receive_buffer {
                // Before connecting: the window is agreed on in the TCP handshake.
                socket.set_recv_buffer_size(bytes)?;
            }
            if let Some(local) = builder.local_address {
                socket.bind(SocketAddr::new(local, 0))?;
            }
            let stream = socket.connect(peer).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        };
        match connect.await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = transport(format!("{peer}: {error}")),
        }
    }
    Err(last)
}

async fn upgrade(address: &Address, builder: &Builder, sid: Option<&str>) -> Result<Ws, ConnectError> {
    let mut stream = dial(address, builder).await?;
    let key = generate_key();
    let path = Address::path("websocket", sid);
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {key}\r\n"
    );
    if !builder
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        request.push_str(&format!("Host: {}\r\n", address.authority));
    }
    for (name, value) in &builder.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(transport)?;

    let mut received = Vec::with_capacity(512);
    let end = loop {
        if let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if received.len() > MAX_RESPONSE {
            return Err(transport("endless response head"));
        }
        if stream.read_buf(&mut received).await.map_err(transport)? == 0 {
            return Err(transport("closed during the handshake"));
        }
    };
    let rest = received.split_off(end);
    let head = Head::parse(&String::from_utf8_lossy(&received))?;
    if head.status != 101 {
        return Err(head.refusal(&mut stream, rest).await);
    }
    if head.header("sec-websocket-accept") != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Err(transport("wrong Sec-WebSocket-Accept"));
    }
    // What arrives is limited by memory only: a replay must never fail because of its size.
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(READ_BUFFER)
        .max_message_size(None)
        .max_frame_size(None);
    Ok(WebSocketStream::from_partially_read(stream, rest, Role::Client, Some(config)).await)
}

/// Status line and headers of a response.
struct Head {
    status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    fn parse(text: &str) -> Result<Self, ConnectError> {
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| transport("not an HTTP response"))?;
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Self { status, headers })
    }

    fn header(&self, wanted: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.as_str())
    }

    /// Reads the body as far as it comes; the caller's timeout bounds the wait.
    async fn refusal(self, stream: &mut TcpStream, mut body: Vec<u8>) -> ConnectError {
        let length = self.header("content-length").and_then(|length| length.parse().ok());
        let chunked = self.header("transfer-encoding") == Some("chunked");
        let wanted: usize = length.unwrap_or(MAX_RESPONSE).min(MAX_RESPONSE);
        while body.len() < wanted && !(chunked && body.ends_with(b"0\r\n\r\n")) {
            match stream.read_buf(&mut body).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        let body = String::from_utf8_lossy(&body);
        let body = if chunked { join_chunks(&body) } else { body.into_owned() };
        ConnectError::Http {
            status: self.status,
            body,
            headers: self.headers,
        }
    }
}

fn join_chunks(body: &str) -> String {
    let mut joined = String::new();
    let mut rest = body;
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.split(';').next().unwrap_or(size).trim(), 16).unwrap_or(0);
        let Some(chunk) = tail.get(..size).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        joined.push_str(chunk);
        rest = tail.get(size + 2..).unwrap_or("");
    }
    joined
}

#[cfg(test)]
mod tests {
    #[test]
    fn chunks_are_joined() {
        assert_eq!(super::join_chunks("3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"), "abcde");
        assert_eq!(super::join_chunks("9\r\nabc"), "");
        assert_eq!(super::join_chunks("zz"), "");
    }
}
