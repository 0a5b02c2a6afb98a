//! Every transport against socketioxide, or whatever server `ROOMCAST_LOAD_TEST_URL` names.

use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use roomcast_load::client::{Client, CloseReason, ConnectError, EmitError, Transport};
use serde_json::{Value, json};
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide::socket::DisconnectReason;

const ALL: [Transport; 3] = [Transport::Websocket, Transport::Polling, Transport::Upgrade];

/// Longer than the server needs to miss a client that polls no more.
const PATIENCE: Duration = Duration::from_secs(10);

async fn refuse(request: Request, next: Next) -> Response {
    if request.headers().contains_key("x-refuse") {
        return (StatusCode::FORBIDDEN, [("retry-after", "7")], r#"{"code":4}"#).into_response();
    }
    next.run(request).await
}

async fn check(_socket: SocketRef, TryData(auth): TryData<Value>) -> Result<(), String> {
    match auth {
        Ok(auth) if auth["refuse"] == true => Err("no entry".to_owned()),
        _ => Ok(()),
    }
}

/// Registers everything before it returns: events may be right behind the CONNECT.
fn welcome(io: SocketIo, socket: SocketRef, TryData(auth): TryData<Value>) -> Ready<()> {
    socket.on("echo", async |Data::<Value>(data), ack: AckSender| {
        ack.send(&[data, json!("two")]).unwrap()
    });
    socket.on("silent", async |Data::<Value>(_), _ack: AckSender| {});
    // Synchronous: asynchronous handlers of one socket overtake each other.
    socket.on("say", |socket: SocketRef, Data::<Value>(data)| {
        socket.emit("said", &data).unwrap();
        ready(())
    });
    socket.on("burst", async |socket: SocketRef, Data::<Value>(data)| {
        let (count, size) = (data["count"].as_u64().unwrap(), data["size"].as_u64().unwrap() as usize);
        for n in 0..count {
            let payload = json!({"n": n, "fill": "x".repeat(size)});
            while socket.emit("tick", &payload).is_err() && socket.connected() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    socket.on("bye", async |socket: SocketRef| socket.disconnect().unwrap());
    socket.on("ask", async |socket: SocketRef| {
        let answer = socket
            .emit_with_ack::<_, Value>("question", &json!("6*7"))
            .unwrap()
            .await
            .unwrap();
        socket.emit("answered", &answer).unwrap();
    });
    socket.on_disconnect(async move |socket: SocketRef, reason: DisconnectReason| {
        let _ = io
            .emit("gone", &json!({"sid": socket.id, "reason": reason.to_string()}))
            .await;
    });
    socket.emit("hello", &auth.unwrap_or_default()).unwrap();
    ready(())
}

async fn serve() -> String {
    serve_pinging(Duration::from_millis(300)).await
}

async fn serve_pinging(interval: Duration) -> String {
    if let Ok(url) = std::env::var("ROOMCAST_LOAD_TEST_URL") {
        return url;
    }
    let builder = SocketIo::builder()
        .ping_interval(interval)
        .ping_timeout(Duration::from_secs(3));
    let (layer, io) = builder.build_layer();
    let for_handlers = io.clone();
    let connect = move |socket: SocketRef, auth: TryData<Value>| welcome(for_handlers.clone(), socket, auth);
    io.ns("/", connect.with(check));
    let app = axum::Router::new()
        .layer(layer)
        .layer(axum::middleware::from_fn(refuse));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

async fn connect(url: &str, transport: Transport) -> Client {
    Client::builder(url)
        .transport(transport)
        .auth(json!({"name": "ada"}))
        .connect()
        .await
        .unwrap()
}

#[tokio::test]
async fn every_transport_connects_emits_and_gets_acks() {
    let url = serve().await;
    for transport in ALL {
        let client = connect(&url, transport).await;
        assert!(!client.sid().is_empty() && client.is_connected());
        assert_eq!(client.expect("hello").await.unwrap(), [json!({"name": "ada"})]);
        assert_eq!(
            client.emit_ack("echo", &json!({"é": 1})).await.unwrap(),
            [json!({"é": 1}), json!("two")]
        );
        client.emit("ask", &Value::Null).unwrap();
        let question = client.expect_arrival("question").await.unwrap();
        client.reply(question.ack.unwrap(), &[json!(42)]).unwrap();
        client.expect("answered").await.unwrap();
        client.expect_none("hello", Duration::from_millis(20)).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_lost_or_reordered_while_upgrading() {
    let url = serve().await;
    for transport in ALL {
        let clients = join_all((0..20).map(|_| connect(&url, transport))).await;
        let say = clients.iter().map(async |client| {
            for n in 0..300 {
                client.emit("say", &n).unwrap();
                if n % 50 == 0 {
                    // Spreads the emissions over the upgrade, and spares the server's queue of 128 packets.
                    client.emit_ack("echo", &n).await.unwrap();
                }
            }
        });
        join_all(say).await;
        for client in &clients {
            for n in 0..300 {
                assert_eq!(client.expect("said").await.unwrap(), [json!(n)], "{transport:?}");
            }
            if transport != Transport::Polling {
                assert!(client.upgraded().await, "{transport:?}");
            }
        }
    }
}

#[tokio::test]
async fn polling_without_upgrade_stays_polling() {
    let client = connect(&serve().await, Transport::Polling).await;
    client.emit_ack("echo", &1).await.unwrap();
    assert_eq!(client.transport(), Transport::Polling);
}

#[tokio::test]
async fn many_acks_can_be_in_flight() {
    let url = serve().await;
    for transport in ALL {
        let client = connect(&url, transport).await;
        let pending: Vec<_> = (0..100).map(|n| client.emit_ack_later("echo", &n).unwrap()).collect();
        for (n, ack) in pending.into_iter().enumerate() {
            assert_eq!(ack.await.unwrap().0[0], json!(n));
        }
    }
}

#[tokio::test]
async fn emissions_on_connect_arrive_first() {
    let url = serve().await;
    for transport in ALL {
        let builder = Client::builder(&url).transport(transport);
        let client = builder
            .emit_on_connect("say", json!(1))
            .emit_on_connect("say", json!(2))
            .connect()
            .await
            .unwrap();
        client.emit("say", &3).unwrap();
        for n in 1..=3 {
            assert_eq!(client.expect("said").await.unwrap(), [json!(n)]);
        }
    }
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let url = serve().await;
    for transport in ALL {
        let builder = Client::builder(&url).transport(transport);
        let refused = builder.clone().auth(json!({"refuse": true})).connect().await;
        assert!(matches!(refused, Err(ConnectError::Refused { message }) if message == "no entry"));
        let Err(ConnectError::Http { status, body, .. }) = builder.header("x-refuse", "1").connect().await else {
            panic!("not an HTTP error");
        };
        // The official server answers a refused websocket with 400 and only the text.
        assert!(
            status == 403 && body.contains("code") || status == 400 && body == "nope",
            "{status} {body}"
        );
        let nobody = Client::builder("http://127.0.0.1:1")
            .transport(transport)
            .connect()
            .await;
        assert!(matches!(nobody, Err(ConnectError::Transport(_))));
    }
}

#[tokio::test]
async fn a_disconnect_of_the_server_is_named_and_ends_what_waits() {
    let url = serve().await;
    for transport in ALL {
        let client = connect(&url, transport).await;
        let waiting = client.emit_ack_later("silent", &1).unwrap();
        client.emit("bye", &Value::Null).unwrap();
        assert_eq!(client.closed().await, CloseReason::ServerDisconnect, "{transport:?}");
        assert!(matches!(waiting.await, Err(EmitError::Closed)));
        assert!(matches!(client.emit("say", &1), Err(EmitError::Closed)));
        let error = client.expect("never").await.unwrap_err().to_string();
        assert!(
            error.contains("hello") && error.contains("disconnected by the server"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn the_server_notices_a_kill_and_a_goodbye() {
    let url = serve().await;
    let watcher = Client::builder(&url).timeout(PATIENCE).connect().await.unwrap();
    for transport in ALL {
        let killed = connect(&url, transport).await;
        if transport == Transport::Upgrade {
            assert!(killed.upgraded().await);
        }
        killed.kill();
        assert_eq!(killed.closed().await, CloseReason::KilledByUs);
        let polite = connect(&url, transport).await;
        polite.emit("say", &1).unwrap();
        polite.disconnect().await;
        assert_eq!(polite.closed().await, CloseReason::DisconnectedByUs);
        for (what, gone) in [("kill", &killed), ("goodbye", &polite)] {
            let args = watcher
                .expect_where("gone", |args| args[0]["sid"] == gone.sid())
                .await
                .unwrap();
            println!("{transport:?} {what}: {}", args[0]["reason"]);
        }
    }
}

#[tokio::test]
async fn a_connection_survives_its_pings() {
    let url = serve().await;
    let clients = join_all(ALL.map(|transport| connect(&url, transport))).await;
    // The time itself is the condition: longer than pingInterval + pingTimeout.
    tokio::time::sleep(Duration::from_millis(4000)).await;
    for client in clients {
        client.emit_ack("echo", &1).await.unwrap();
    }
}

#[tokio::test]
async fn a_paused_client_reads_nothing_and_loses_nothing() {
    // socketioxide cuts a socket whose queue is full at the moment of a ping, so there is none meanwhile; the first one
    // comes right after the opening, and is gone when an answer has come.
    let url = serve_pinging(Duration::from_secs(30)).await;
    for transport in ALL {
        let client = Client::builder(&url)
            .transport(transport)
            .receive_buffer(4096)
            .connect()
            .await
            .unwrap();
        if transport == Transport::Upgrade {
            assert!(client.upgraded().await);
        }
        client.emit_ack("echo", &1).await.unwrap();
        client.pause_reading();
        client.emit("burst", &json!({"count": 1000, "size": 8192})).unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(client.take("tick").is_empty());
        client.resume_reading();
        for n in 0..1000 {
            assert_eq!(client.expect("tick").await.unwrap()[0]["n"], n);
        }
    }
}

#[tokio::test]
async fn many_clients_share_one_stream() {
    let url = serve().await;
    let (events, mut received) = tokio::sync::mpsc::channel(4);
    let open: Vec<_> = (0..50)
        .map(|tag| {
            let builder = Client::builder(&url)
                .transport(ALL[tag as usize % 3])
                .tag(tag)
                .stream(events.clone());
            builder
                .emit_on_connect("burst", json!({"count": 40, "size": 10}))
                .timeout(PATIENCE)
                .connect()
        })
        .collect();
    drop(events);
    let reading = async {
        let mut next = [0; 50];
        while next.iter().sum::<u64>() < 50 * 40 {
            let event = tokio::time::timeout(PATIENCE, received.recv()).await.unwrap().unwrap();
            if event.name == "tick" {
                let payload: Value = event.arg(0).unwrap();
                assert_eq!(payload["n"], next[event.client as usize]);
                next[event.client as usize] += 1;
            }
        }
    };
    let (clients, ()) = tokio::join!(join_all(open), reading);
    assert!(clients.iter().all(Result::is_ok));
    drop(clients);
    while received.recv().await.is_some() {}
}

#[tokio::test]
async fn dropped_clients_leave_no_task() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let url = serve().await;
    let metrics = runtime.handle().metrics();
    let open = runtime.spawn(async move {
        let clients = join_all((0..30).map(|n| connect(&url, ALL[n % 3]))).await;
        join_all(clients.iter().map(|client| client.emit_ack("echo", &1))).await;
        clients
    });
    let clients = open.await.unwrap();
    assert!(metrics.num_alive_tasks() >= 30);
    drop(clients);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while metrics.num_alive_tasks() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(metrics.num_alive_tasks(), 0);
    runtime.shutdown_background();
}
