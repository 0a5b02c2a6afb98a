//! Servers that misbehave: silence, garbage, binary frames, a peer that vanishes.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use roomcast_load::client::{Client, CloseReason, ConnectError, EmitError, UNREADABLE};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// Accepts one client and answers its CONNECT; it never pings.
async fn accept(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let mut ws = accept_async(listener.accept().await.unwrap().0).await.unwrap();
    let open = r#"0{"sid":"e","upgrades":[],"pingInterval":200,"pingTimeout":300,"maxPayload":1000}"#;
    ws.send(Message::text(open)).await.unwrap();
    assert_eq!(ws.next().await.unwrap().unwrap(), Message::text("40"));
    ws.send(Message::text(r#"40{"sid":"s"}"#)).await.unwrap();
    ws
}

async fn pair() -> (Client, WebSocketStream<TcpStream>) {
    let (listener, url) = listen().await;
    let (client, server) = tokio::join!(Client::builder(url).connect(), accept(&listener));
    (client.unwrap(), server)
}

#[tokio::test]
async fn a_missing_ping_ends_the_connection() {
    let (client, _server) = pair().await;
    let since = std::time::Instant::now();
    assert_eq!(client.closed().await, CloseReason::PingTimeout);
    assert!((300..3000).contains(&since.elapsed().as_millis()));
}

#[tokio::test]
async fn pings_are_answered_and_garbage_is_reported_in_its_place() {
    let (client, mut server) = pair().await;
    let binary = "451-[\"b\",{\"_placeholder\":true,\"num\":0}]";
    for garbage in ["", "x", "4", "42[1]", "42[\"a\"", "43x", "42/other,[\"a\"]", binary] {
        server.send(Message::text(garbage)).await.unwrap();
        server.send(Message::text("42[\"ok\"]")).await.unwrap();
    }
    server.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    let deep = format!("42[\"deep\",{}{}]", "[".repeat(5000), "]".repeat(5000));
    server.send(Message::text(deep)).await.unwrap();
    server.send(Message::text("2")).await.unwrap();
    assert_eq!(server.next().await.unwrap().unwrap(), Message::text("3"));
    assert_eq!((client.take("ok").len(), client.take(UNREADABLE).len()), (8, 10));
    assert!(client.is_connected());
}

#[tokio::test]
async fn raw_frames_leave_as_they_are_and_an_ack_times_out() {
    let (listener, url) = listen().await;
    let limit = Duration::from_millis(100);
    let (client, mut server) = tokio::join!(Client::builder(url).timeout(limit).connect(), accept(&listener));
    let client = client.unwrap();
    client.send_raw("4garbage").unwrap();
    client.send_raw_binary([0, 255]).unwrap();
    client.emit_args("ev", &[json!(1), json!("b")]).unwrap();
    for expected in [
        Message::text("4garbage"),
        Message::binary(vec![0, 255]),
        Message::text("42[\"ev\",1,\"b\"]"),
    ] {
        assert_eq!(server.next().await.unwrap().unwrap(), expected);
    }
    assert!(matches!(client.emit_ack("ev", &1).await, Err(EmitError::Timeout)));
    let error = client.expect("nothing").await.unwrap_err().to_string();
    assert!(error.contains("nothing is waiting; still connected"), "{error}");
}

#[tokio::test]
async fn the_first_match_is_taken_and_the_others_keep_their_place() {
    let (client, mut server) = pair().await;
    for n in 0..5 {
        server.send(Message::text(format!("42[\"n\",{n}]"))).await.unwrap();
    }
    assert_eq!(client.expect_where("n", |args| args[0] == 3).await.unwrap(), [json!(3)]);
    assert!(client.expect_none("n", Duration::from_millis(10)).await.is_err());
    assert_eq!(client.expect("n").await.unwrap(), [json!(0)]);
    let error = client
        .expect_within("m", Duration::from_millis(10))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("waiting: n[1], n[2]") && error.contains("taken before: n×2"),
        "{error}"
    );
}

#[tokio::test]
async fn a_kill_leaves_without_a_close_frame_and_a_goodbye_with_one() {
    let (client, mut server) = pair().await;
    client.kill();
    let end = server.next().await;
    assert!(matches!(end, None | Some(Err(_))), "{end:?}");
    let (client, mut server) = pair().await;
    let answer = async {
        assert_eq!(server.next().await.unwrap().unwrap(), Message::text("41"));
        server.next().await
    };
    let (end, ()) = tokio::join!(answer, client.disconnect());
    assert!(matches!(end, Some(Ok(Message::Close(_)))), "{end:?}");
}

#[tokio::test]
async fn events_before_the_end_are_kept() {
    let (client, mut server) = pair().await;
    for n in 0..1000 {
        server.feed(Message::text(format!("42[\"n\",{n}]"))).await.unwrap();
    }
    server.send(Message::text("1")).await.unwrap();
    drop(server);
    assert_eq!(client.closed().await, CloseReason::EngineClose);
    assert_eq!(client.take("n").len(), 1000);
    let (client, server) = pair().await;
    drop(server);
    assert!(matches!(client.closed().await, CloseReason::TransportClose(_)));
}

#[tokio::test]
async fn a_small_receive_buffer_holds_the_server_back_while_paused() {
    let (listener, url) = listen().await;
    let builder = Client::builder(url).receive_buffer(4096);
    let (client, mut server) = tokio::join!(builder.connect(), accept(&listener));
    let client = client.unwrap();
    client.pause_reading();
    let flood = async {
        for _ in 0..10_000 {
            server
                .send(Message::text(format!("42[\"n\",\"{}\"]", "x".repeat(8000))))
                .await
                .unwrap();
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_millis(700), flood).await.is_err(),
        "80 MB went through"
    );
    assert!(client.take("n").len() <= 1);
    // Longer than the allowed silence has passed, but a paused client cannot hear a ping.
    assert!(client.is_connected());
}

#[tokio::test]
async fn a_hanging_handshake_times_out_and_a_refusal_keeps_its_body() {
    let (listener, url) = listen().await;
    let builder = Client::builder(url).timeout(Duration::from_millis(300));
    assert!(matches!(builder.clone().connect().await, Err(ConnectError::Timeout)));
    drop(listener.accept().await.unwrap());
    let answer = async {
        let (mut stream, peer) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nContent-Length: 9\r\n\r\n{\"a\"")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(b":\"b\"}").await.unwrap();
        (peer.ip(), String::from_utf8_lossy(&request[..length]).into_owned())
    };
    let builder = builder
        .header("X-Forwarded-For", "1.2.3.4")
        .local_address("127.0.3.7".parse().unwrap());
    let (refused, (peer, request)) = tokio::join!(builder.connect(), answer);
    assert!(request.contains("X-Forwarded-For: 1.2.3.4\r\n"), "{request}");
    assert_eq!(peer.to_string(), "127.0.3.7");
    let Err(ConnectError::Http { status, body, headers }) = refused else {
        panic!("not refused")
    };
    assert_eq!((status, body.as_str()), (429, "{\"a\":\"b\"}"));
    assert!(headers.contains(&("retry-after".to_owned(), "3".to_owned())));
}
