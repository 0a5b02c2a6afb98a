//! Rooms with socketioxide and its Redis adapter, as one would write them: join, and a message for everybody in the room.
//!
//! `PORT=… REDIS_URL=redis://… roomcast-peer-stock`

use std::error::Error;
use std::future::{Ready, ready};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use fred::prelude::*;
use fred::types::RespVersion;
use serde::{Deserialize, Serialize};
use socketioxide::SocketIo;
use socketioxide::adapter::Adapter;
use socketioxide::extract::{AckSender, Data, SocketRef};
use socketioxide_redis::{FredAdapter, RedisAdapterCtr};

static SEQ: AtomicU64 = AtomicU64::new(0);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Join {
    #[serde(rename = "roomID")]
    room: String,
}

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "roomID")]
    room: String,
    message: String,
}

#[derive(Serialize)]
struct Message {
    #[serde(rename = "roomID")]
    room: String,
    message: String,
    id: String,
    timestamp: u64,
    username: &'static str,
    platformid: &'static str,
}

#[derive(Serialize)]
struct Ack {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

/// Not `async`: then the handlers are there before the client hears that it is connected, and its first event is not lost.
fn on_connect<A: Adapter>(socket: SocketRef<A>) -> Ready<()> {
    socket.on(
        "join",
        async |socket: SocketRef<A>, Data(join): Data<Join>, ack: AckSender<A>| {
            socket.join(join.room);
            let _gone = ack.send(&Ack { ok: true, id: None });
        },
    );
    socket.on(
        "message",
        async |socket: SocketRef<A>, Data(said): Data<Said>, ack: AckSender<A>| {
            let timestamp = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64);
            let id = format!("{timestamp}-{}", SEQ.fetch_add(1, Ordering::Relaxed));
            let message = Message {
                room: said.room.clone(),
                message: said.message,
                id: id.clone(),
                timestamp,
                username: "someone",
                platformid: "p0",
            };
            let sent = socket.within(said.room).emit("message", &message).await;
            let _gone = ack.send(&Ack {
                ok: sent.is_ok(),
                id: Some(id),
            });
        },
    );
    ready(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config::from_url(&std::env::var("REDIS_URL")?)?;
    // Without it every emit fails.
    config.version = RespVersion::RESP3;
    let client = Builder::from_config(config).build_subscriber_client()?;
    client.init().await?;
    let adapter = RedisAdapterCtr::new_with_fred(client).await?;
    let (layer, io) = SocketIo::builder()
        .with_adapter::<FredAdapter<_>>(adapter)
        .build_layer();
    io.ns("/", on_connect).await?;
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{}", std::env::var("PORT")?)).await?;
    let app = axum::Router::new().layer(layer);
    axum::serve(listener, app).with_graceful_shutdown(stopped()).await?;
    Ok(())
}

async fn stopped() {
    // The measuring is over: open connections are not waited for.
    if let Ok(mut signal) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        signal.recv().await;
        std::process::exit(0);
    }
}
