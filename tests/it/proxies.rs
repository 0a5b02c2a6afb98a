//! Whom the node counts behind proxies: never whom a client names.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use roomcast_load::client::{Builder, ConnectError, Transport};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::proxies::{CLIENT_BEFORE, PROXIES, Proxies, Route};
use crate::support::{World, until, within};

/// Request headers by which a client claims to be somebody else.
fn lies() -> Vec<Vec<(&'static str, &'static str)>> {
    const FORWARDED: &str = "X-Forwarded-For";
    vec![
        vec![],
        vec![(FORWARDED, "203.0.113.66")],
        vec![(FORWARDED, "203.0.113.66"), (FORWARDED, "203.0.113.67, 203.0.113.68")],
        vec![(FORWARDED, "2001:db8:bad::1"), (FORWARDED, "[2001:db8:bad::2]:443")],
        vec![(FORWARDED, "203.0.113.66:4711, ::ffff:203.0.113.67")],
        vec![(FORWARDED, "unknown, _hidden, ,;\"x\" 1.2.3")],
        vec![(FORWARDED, "203.0.113.66,"), (FORWARDED, ",")],
        // As if the proxies had written it, and as if the client were one of them.
        vec![(FORWARDED, "203.0.113.66, 127.0.9.1"), (FORWARDED, "127.0.9.2")],
        vec![
            ("Forwarded", "for=203.0.113.66"),
            ("X-Real-IP", "203.0.113.66"),
            ("True-Client-IP", "203.0.113.66"),
            ("PROXY", "TCP4 203.0.113.66 127.0.0.1 1 2"),
        ],
    ]
}

/// A client of user `user` that comes from `source` on this route, and the address that is to be counted for it.
fn through(world: &World, route: &Route, user: usize, source: &str, lie: &[(&str, &str)]) -> (Builder, String) {
    let mut client = world.client_at(&route.url, user).local_address(source.parse().unwrap());
    for (name, value) in lie {
        client = client.header(*name, *value);
    }
    if !route.has_client_before {
        return (client, source.to_owned());
    }
    // A /64 of its own, because IPv6 counts by that.
    let before = format!("2001:db8:{}::9", source.replace("127.0.", "").replace('.', ":"));
    (client.header(CLIENT_BEFORE, &before), before)
}

/// The addresses that `user` connected from, once there are `count` connections.
async fn counted(world: &World, user: usize, count: usize) -> BTreeSet<String> {
    let connects = async || -> Vec<String> {
        let entries = world
            .redis
            .cli(&["LRANGE", &format!("connections:p{user}"), "0", "-1"])
            .await;
        let entries = entries
            .iter()
            .map(|entry| serde_json::from_str::<Value>(entry).unwrap());
        let connects = entries.filter(|entry| entry["event"] == "connect");
        connects.map(|entry| entry["ip"].as_str().unwrap().to_owned()).collect()
    };
    until("every connection is written down", Duration::from_secs(10), || async {
        connects().await.len() == count
    })
    .await;
    connects().await.into_iter().collect()
}

/// The addresses that are blocked.
async fn blocked(world: &World) -> BTreeSet<String> {
    let keys = world
        .redis
        .cli(&["--scan", "--pattern", "rc:{tokenRequests:*}:ban"])
        .await;
    let address = |key: &String| key["rc:{tokenRequests:".len()..key.len() - "}:ban".len()].to_owned();
    keys.iter().map(address).collect()
}

fn is_forbidden<T>(result: &Result<T, ConnectError>) -> bool {
    matches!(result, Err(ConnectError::Http { status: 403, .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn spoofed_addresses_never_change_whom_we_count() {
    let world = World::with(1, &[("TRUSTED_PROXIES", PROXIES)]).await;
    let proxies = Proxies::start(world.nodes[0].address).await;
    let routes = proxies.routes.iter().enumerate().map(async |(user, route)| {
        let (lies, source) = (lies(), format!("127.0.5.{}", user + 1));
        let mut right = BTreeSet::new();
        for lie in &lies {
            for transport in [Transport::Websocket, Transport::Polling] {
                let (client, address) = through(&world, route, user, &source, lie);
                let client = client.transport(transport).connect().await;
                client.unwrap_or_else(|error| panic!("{}, {transport:?}, {lie:?}: {error}", route.name));
                right.insert(address);
            }
        }
        assert_eq!(counted(&world, user, lies.len() * 2).await, right, "{}", route.name);
    });
    futures::future::join_all(routes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_handshake_blocks_its_sender_and_nobody_it_names() {
    let world = World::with(1, &[("TRUSTED_PROXIES", PROXIES)]).await;
    let proxies = Proxies::start(world.nodes[0].address).await;
    let mut offenders = BTreeSet::new();
    for (user, route) in proxies.routes.iter().enumerate() {
        for (subnet, transport) in [(5, Transport::Websocket), (6, Transport::Polling)] {
            let offender = format!("127.0.{subnet}.{}", user + 1);
            let bystander = format!("127.0.{}.{}", subnet + 2, user + 1);
            let from = |source: &str| {
                let lie = [
                    ("X-Forwarded-For", bystander.as_str()),
                    ("X-Forwarded-For", "127.0.9.1"),
                ];
                let (client, address) = through(&world, route, user, source, &lie);
                (client.transport(transport), address)
            };
            let (bad, address) = from(&offender);
            let refused = bad.auth(json!({})).connect().await;
            assert!(
                matches!(refused, Err(ConnectError::Refused { .. })),
                "{}: {refused:?}",
                route.name
            );
            assert!(
                is_forbidden(&from(&offender).0.connect().await),
                "{}, {transport:?}",
                route.name
            );
            let innocent = from(&bystander).0.connect().await;
            innocent.unwrap_or_else(|error| panic!("{}, {transport:?}: {error}", route.name));
            offenders.insert(address.replace("::9", "::"));
        }
    }
    assert_eq!(blocked(&world).await, offenders);
}

#[tokio::test(flavor = "multi_thread")]
async fn undeclared_proxies_and_foreign_origins_block_nobody() {
    let world = World::start(1).await;
    let proxies = Proxies::start(world.nodes[0].address).await;
    for route in &proxies.routes {
        for transport in [Transport::Websocket, Transport::Polling] {
            let client = || through(&world, route, 0, "127.0.5.1", &[]).0.transport(transport);
            client().auth(json!({})).connect().await.unwrap_err();
            if route.sends_proxy_header {
                // What it begins with is no HTTP from a peer that nobody has declared.
                client().connect().await.unwrap_err();
                continue;
            }
            let foreign = client()
                .header("Origin", "https://evil.example")
                .auth(json!({}))
                .connect()
                .await;
            assert!(is_forbidden(&foreign), "{}", route.name);
            let innocent = client().connect().await;
            innocent.unwrap_or_else(|error| panic!("{}, {transport:?}: {error}", route.name));
        }
    }
    assert_eq!(blocked(&world).await, BTreeSet::new());

    let world = World::with(1, &[("TRUSTED_PROXIES", PROXIES)]).await;
    let proxies = Proxies::start(world.nodes[0].address).await;
    for route in &proxies.routes {
        let (client, _) = through(&world, route, 0, "127.0.5.1", &[]);
        let foreign = client
            .header("Origin", "https://evil.example")
            .auth(json!({}))
            .connect()
            .await;
        assert!(is_forbidden(&foreign), "{}", route.name);
    }
    assert_eq!(blocked(&world).await, BTreeSet::new());
}

/// Passes connections on to the node from `source`, each beginning with `header`; returns its own address.
async fn forward(node: SocketAddr, source: &str, header: Vec<u8>) -> String {
    let (listener, source) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), source.to_owned());
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut node = connect_from(node, &source).await;
            node.write_all(&header).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut node).await });
        }
    });
    url
}

async fn connect_from(node: SocketAddr, source: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    socket.connect(node).await.unwrap()
}

/// A header of version 2.
fn version_2(command: u8, source: IpAddr) -> Vec<u8> {
    let (family, block) = match source {
        IpAddr::V4(ip) => (0x11, [&ip.octets()[..], &[127, 0, 0, 1, 0, 1, 0, 2]].concat()),
        IpAddr::V6(ip) => (0x21, [&ip.octets()[..], &[0; 16], &[0, 1, 0, 2]].concat()),
    };
    let length = u8::try_from(block.len()).unwrap();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family, 0, length][..], &block].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_header_is_believed_from_trusted_peers_only() {
    let world = World::with(1, &[("TRUSTED_PROXIES", PROXIES)]).await;
    let proxy = |ip: &str| version_2(0x21, ip.parse().unwrap());
    let line = |line: &str| format!("PROXY {line}\r\n").into_bytes();
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("127.0.9.7", line("TCP4 192.0.2.9 127.0.0.1 1 2"), "192.0.2.9"),
        ("127.0.9.7", proxy("192.0.2.9"), "192.0.2.9"),
        ("127.0.9.7", proxy("2001:db8::9"), "2001:db8::9"),
        ("127.0.9.7", proxy("::ffff:192.0.2.9"), "192.0.2.9"),
        // Of a client that is a trusted proxy itself the hops count.
        ("127.0.9.7", proxy("127.0.9.8"), "198.51.100.7"),
        // Nobody is named, so the hops are the client's own.
        ("127.0.9.7", line("UNKNOWN"), "127.0.9.7"),
        ("127.0.9.7", version_2(0x20, [192, 0, 2, 9].into()), "127.0.9.7"),
        // No header at all.
        ("127.0.9.7", Vec::new(), "198.51.100.7"),
    ];
    for (user, (source, header, right)) in cases.into_iter().enumerate() {
        let url = forward(world.nodes[0].address, source, header).await;
        let client = world
            .client_at(&url, user)
            .header("X-Forwarded-For", "6.6.6.6, 198.51.100.7");
        client.connect().await.unwrap_or_else(|error| panic!("{user}: {error}"));
        assert_eq!(
            counted(&world, user, 1).await,
            BTreeSet::from([right.to_owned()]),
            "{user}"
        );
    }
    for header in [
        line("TCP4 192.0.2.9 127.0.0.1 1 2"),
        proxy("192.0.2.9"),
        line("UNKNOWN"),
    ] {
        let url = forward(world.nodes[0].address, "127.0.5.1", header).await;
        world.client_at(&url, 20).connect().await.unwrap_err();
    }
    world.client_at(&world.url(0), 20).connect().await.unwrap();
    assert_eq!(counted(&world, 20, 1).await, BTreeSet::from(["127.0.0.1".to_owned()]));
}

const REQUEST: &str = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// The status of the answer; `None` when the node closes without one.
async fn status(world: &World, source: &str, sent: &[u8]) -> Option<u16> {
    let mut stream = connect_from(world.nodes[0].address, source).await;
    stream.write_all(sent).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end like any other.
    let _reset = within("the node answers or closes", stream.read_to_end(&mut answer)).await;
    let head = String::from_utf8_lossy(&answer);
    head.split(' ').nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn trusted_peer_may_do_without_a_header_unless_it_is_required() {
    let with = |header: &str| format!("{header}{REQUEST}").into_bytes();
    let settings = [("TRUSTED_PROXIES", PROXIES), ("ROOMCAST_HEADER_TIMEOUT", "300ms")];
    let world = World::with(1, &settings).await;
    assert_eq!(status(&world, "127.0.9.7", &with("")).await, Some(200));
    assert_eq!(status(&world, "127.0.9.7", &with("PROXY UNKNOWN\r\n")).await, Some(200));
    let local = [version_2(0x20, [0, 0, 0, 0].into()), with("")].concat();
    assert_eq!(status(&world, "127.0.9.7", &local).await, Some(200));
    // A client behind the proxy cannot add a header of its own.
    let twice = with("PROXY UNKNOWN\r\nPROXY TCP4 203.0.113.66 127.0.0.1 1 2\r\n");
    assert_eq!(status(&world, "127.0.9.7", &twice).await, Some(400));
    for broken in [
        "PROXY nonsense\r\n",
        "PROXY UNKNOWN\n",
        &format!("PROXY UNKNOWN {}\r\n", "x".repeat(5000)),
    ] {
        assert_eq!(status(&world, "127.0.9.7", &with(broken)).await, None, "{broken:?}");
    }
    // Neither the rest of a header nor a request ever comes.
    for stalled in [
        "",
        "P",
        "PROXY TCP4 192.0.2.9",
        "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
        "PROXY UNKNOWN\r\n",
    ] {
        assert_eq!(
            status(&world, "127.0.9.7", stalled.as_bytes()).await,
            None,
            "{stalled:?}"
        );
    }

    let world = World::with(1, &[settings[0], ("PROXY_PROTOCOL", "required")]).await;
    assert_eq!(status(&world, "127.0.9.7", &with("")).await, None);
    assert_eq!(status(&world, "127.0.9.7", &with("PROXY UNKNOWN\r\n")).await, Some(200));
    assert_eq!(status(&world, "127.0.5.1", &with("")).await, Some(200));
}
