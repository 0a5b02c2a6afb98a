//! What a connection meets before its first request is served, as bytes on the wire.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{World, within};

async fn connect(world: &World, last: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::new(IpAddr::from([127, 0, 3, last]), 0))
        .unwrap();
    let stream = socket.connect(world.nodes[0].address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// All that is answered until the node closes; the head in lower case.
async fn answer(stream: &mut TcpStream) -> (String, String) {
    let mut answer = Vec::new();
    // A reset is an end like any other.
    let _reset = within("the node closes", stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_lowercase(), body.to_owned())
}

async fn exchange(world: &World, last: u8, request: &str) -> (String, String) {
    let mut stream = connect(world, last).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    answer(&mut stream).await
}

fn handshake(more: &str) -> String {
    format!("GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: chat.example\r\n{more}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_handshake_gets_its_whole_answer_and_counts_nothing_else() {
    let settings = [
        ("GUARD_HANDSHAKES_PER_ADDRESS", "1/h burst 1"),
        ("CORS_ORIGINS", "https://page.example"),
    ];
    let world = World::with(1, &settings).await;
    let (head, _) = exchange(&world, 1, &handshake("Connection: close\r\n")).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");

    let with_origin = handshake("Origin: https://page.example\r\n");
    let (head, body) = exchange(&world, 1, &with_origin).await;
    assert!(head.starts_with("http/1.1 429"), "{head}");
    for header in [
        "content-type: application/json",
        "retry-after: 3",
        "connection: close",
        "access-control-allow-origin: https://page.example",
        &format!("content-length: {}", body.len()),
    ] {
        assert!(head.contains(header), "{header}: {head}");
    }
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["code"], "rate_limited");
    assert!(body["retryAfterMs"].as_u64().unwrap() > 3_000_000, "{body}");

    // A head may come in as many pieces as it likes.
    let mut stream = connect(&world, 1).await;
    for byte in handshake("").into_bytes() {
        stream.write_all(&[byte]).await.unwrap();
    }
    assert!(answer(&mut stream).await.0.starts_with("http/1.1 429"));

    // A foreign origin is told so, and is not counted.
    let foreign = handshake("Origin: https://evil.example\r\n");
    for _ in 0..3 {
        let (head, body) = exchange(&world, 2, &foreign).await;
        assert!(head.starts_with("http/1.1 403") && body.contains("origin"), "{head}");
    }
    let (head, _) = exchange(&world, 2, &handshake("Connection: close\r\n")).await;
    assert!(head.starts_with("http/1.1 200"), "{head}");

    // Requests of sessions that exist, and pages, are no handshakes.
    let session =
        "GET /socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAA HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(exchange(&world, 1, session).await.0.starts_with("http/1.1 400"));
    let page = "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(exchange(&world, 1, page).await.0.starts_with("http/1.1 404"));
}

#[tokio::test(flavor = "multi_thread")]
async fn head_that_is_late_too_long_or_no_http_ends_its_connection_only() {
    let world = World::with(1, &[("ROOMCAST_HEADER_TIMEOUT", "300ms")]).await;
    let (head, _) = exchange(&world, 1, "GET /socket.io/?EIO=4").await;
    assert_eq!(head, "", "late");
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(64 * 1024));
    let mut stream = connect(&world, 1).await;
    // The node may end the connection before it has taken everything.
    let _reset = stream.write_all(endless.as_bytes()).await;
    let (head, _) = answer(&mut stream).await;
    assert!(head.is_empty() || head.starts_with("http/1.1 431"), "{head}");
    let (head, _) = exchange(&world, 1, "\x16\x03\x01 no HTTP at all\r\n\r\n").await;
    assert!(head.starts_with("http/1.1 400"), "{head}");

    // A second request on the connection of the first, and one that came together with it.
    let mut stream = connect(&world, 1).await;
    let page = "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream
        .write_all(format!("{page}{page}{last}").as_bytes())
        .await
        .unwrap();
    let mut all = String::new();
    let read = within("the node answers three times", stream.read_to_string(&mut all));
    read.await.unwrap();
    assert_eq!(all.matches("HTTP/1.1 404").count(), 3, "{all}");

    let waiting = || async { world.metric(0, "roomcast_unauthenticated_connections") == 0.0 };
    crate::support::until("no place is held", Duration::from_secs(5), waiting).await;
}
