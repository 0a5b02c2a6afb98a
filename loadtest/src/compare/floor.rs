//! The floor: a websocket server that writes one frame to each member of a room in a loop. It has no adapter, no heartbeat
//! and no order between rooms; whatever does more costs more.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// What one read takes.
const READ: usize = 2048;
/// A head or a frame of ours is smaller.
const BUFFER_MAX: usize = 64 * 1024;

type Writer = Arc<OwnedWriteHalf>;
type Rooms = Arc<Mutex<HashMap<String, Vec<Writer>>>>;

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "roomID")]
    room: String,
    #[serde(default)]
    message: String,
}

fn lock(rooms: &Rooms) -> MutexGuard<'_, HashMap<String, Vec<Writer>>> {
    rooms.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves until it is killed.
pub async fn serve(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let rooms = Rooms::default();
    loop {
        let (stream, _) = listener.accept().await?;
        let rooms = rooms.clone();
        tokio::spawn(async move {
            // A connection that breaks is one that ended.
            let _ended = connection(stream, &rooms).await;
        });
    }
}

async fn connection(mut stream: TcpStream, rooms: &Rooms) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::new();
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break buffer.split_to(end + 4);
        }
        read(&mut stream, &mut buffer).await?;
    };
    let head = String::from_utf8_lossy(&head).into_owned();
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let accept = derive_accept_key(key.unwrap_or_default().as_bytes());
    let (reader, writer) = stream.into_split();
    let writer = Arc::new(writer);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    write(&writer, answer.as_bytes()).await?;
    let open = r#"0{"sid":"floor","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":65536}"#;
    write(&writer, &served(open)).await?;
    let ended = packets(reader, &writer, buffer, rooms).await;
    for members in lock(rooms).values_mut() {
        members.retain(|member| !Arc::ptr_eq(member, &writer));
    }
    ended
}

async fn packets(mut reader: OwnedReadHalf, writer: &Writer, mut buffer: BytesMut, rooms: &Rooms) -> io::Result<()> {
    loop {
        while let Some(packet) = next(&mut buffer) {
            let packet = String::from_utf8_lossy(&packet).into_owned();
            let Some(event) = packet.strip_prefix("42") else {
                if packet.starts_with("40") {
                    write(writer, &served(r#"40{"sid":"floor"}"#)).await?;
                }
                continue;
            };
            let Some(at) = event.find('[') else { continue };
            let (ack, event) = event.split_at(at);
            let (name, asked): (String, Asked) = serde_json::from_str(event)?;
            if name == "join" {
                lock(rooms).entry(asked.room).or_default().push(writer.clone());
            } else {
                let text = format!(
                    r#"42["message",{{"roomID":"{}","message":"{}"}}]"#,
                    asked.room, asked.message
                );
                let members = lock(rooms).get(&asked.room).cloned().unwrap_or_default();
                let frame = served(&text);
                for member in &members {
                    write(member, &frame).await?;
                }
            }
            write(writer, &served(&format!(r#"43{ack}[{{"ok":true}}]"#))).await?;
        }
        if buffer.len() > BUFFER_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        buffer.reserve(READ);
        if reader.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<()> {
    if buffer.len() > BUFFER_MAX || stream.read_buf(buffer).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Writes whole frames; of small ones a socket takes all or nothing.
async fn write(writer: &Writer, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match writer.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => writer.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A text frame of a server.
fn served(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        length @ 0..=125 => frame.push(length as u8),
        length => {
            frame.push(126);
            frame.extend_from_slice(&(length.min(0xFFFF) as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// The payload of the next frame of a client, whose mask is lifted.
fn next(buffer: &mut BytesMut) -> Option<Vec<u8>> {
    let second = *buffer.get(1)?;
    let (head, length) = match second & 0x7F {
        126 => (4, usize::from(u16::from_be_bytes([*buffer.get(2)?, *buffer.get(3)?]))),
        length => (2, usize::from(length)),
    };
    if buffer.len() < head + 4 + length {
        return None;
    }
    let frame = buffer.split_to(head + 4 + length);
    let mask = &frame[head..head + 4];
    let payload = frame[head + 4..].iter().zip(mask.iter().cycle());
    Some(payload.map(|(byte, mask)| byte ^ mask).collect())
}
