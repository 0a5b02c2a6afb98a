//! Uploads far over the limit: websocket frames, polling bodies, and frames of a valid client.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Attack, crowd, wire};

/// A body nobody may send: 128 times the default limit.
const BODY: usize = 8 * 1024 * 1024;
/// In one write.
const CHUNK: usize = 64 * 1024;
/// How long one upload may take.
const UPLOAD_MAX: Duration = Duration::from_secs(5);

/// Uploads one after the other, another sort each time.
pub async fn flood(attack: Arc<Attack>, number: usize) {
    let websocket = wire::websocket(attack.target, None);
    let polling = wire::polling(attack.target, None);
    let mut turn = number;
    while attack.goes_on() {
        let source = attack.source(turn);
        match turn % 4 {
            0 => {
                if let Some(mut opened) = wire::open(attack.target, source, &websocket, &attack.tally).await {
                    upload(&attack, &mut opened.stream, &wire::frame_head(BODY as u64)).await;
                }
            }
            1 => {
                let opened = wire::open(attack.target, source, &polling, &attack.tally).await;
                if let Some(mut opened) = opened
                    && wire::wait_for(&mut opened, "\"upgrades\"", "\"code\"").await
                    && let Some(sid) = sid(&opened.rest)
                {
                    let head = wire::post(attack.target, &sid, BODY);
                    upload(&attack, &mut opened.stream, head.as_bytes()).await;
                }
            }
            // To a session that does not exist: the head says already that it is too much.
            2 => {
                let head = wire::post(attack.target, "AAAAAAAAAAAAAAAA", BODY);
                super::tally::count(&attack.tally.tries);
                match timeout(UPLOAD_MAX, wire::dial(attack.target, source)).await {
                    Ok(Ok(mut stream)) => upload(&attack, &mut stream, head.as_bytes()).await,
                    _ => super::tally::count(&attack.tally.failed),
                }
            }
            _ => {
                if let Some(user) = attack.users.first()
                    && let Some(mut opened) = crowd::enter(&attack, user).await
                {
                    upload(&attack, &mut opened.stream, &wire::frame_head(BODY as u64)).await;
                }
            }
        }
        turn += 1;
    }
}

/// Writes head and body until the other side has enough.
async fn upload(attack: &Attack, stream: &mut TcpStream, head: &[u8]) {
    let (mut reading, mut writing) = stream.split();
    let write = async {
        let chunk = [b'x'; CHUNK];
        if writing.write_all(head).await.is_err() {
            return;
        }
        for _ in 0..BODY / CHUNK {
            if writing.write_all(&chunk).await.is_err() {
                return;
            }
            attack.tally.bytes.fetch_add(CHUNK as u64, Ordering::Relaxed);
        }
    };
    let read = async {
        let mut buffer = [0; 512];
        while matches!(reading.read(&mut buffer).await, Ok(1..)) {}
    };
    let both = async {
        tokio::select! {
            () = write => {}
            () = read => {}
        }
    };
    let _ = timeout(UPLOAD_MAX, both).await;
    super::tally::count(&attack.tally.cut);
}

fn sid(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once("\"sid\":\"")?;
    rest.split_once('"').map(|(sid, _)| sid.to_owned())
}
