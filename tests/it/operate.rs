//! What operators do, on the command line and over `/admin`, and what it does on every node.

mod admin;
mod queue;

use std::collections::HashMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use roomcast::model::UserId;
use roomcast::redis::{OwnedSocket, Redis, Term};
use roomcast_load::client::{Builder, Client, ConnectError};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{USER_AGENT, World, until, within};

/// How soon every node must have carried out an act.
const SOON: Duration = Duration::from_secs(2);

/// How a command ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.err);
        serde_json::from_str(&self.out).unwrap()
    }

    /// The words of a table, row by row, without its header.
    fn rows(&self, header: &[&str]) -> Vec<Vec<String>> {
        assert_eq!(self.code, 0, "{}", self.err);
        let words = |line: &str| -> Vec<String> {
            let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
            cells.map(str::to_owned).collect()
        };
        let mut lines = self.out.lines().map(words);
        assert_eq!(lines.next().unwrap(), header, "{}", self.out);
        lines.collect()
    }
}

/// Runs the program as operators do: with the settings of Redis and no others.
async fn roomcast(settings: Vec<(&'static str, String)>, args: &[&str]) -> Ended {
    let command = Command::new(env!("CARGO_BIN_EXE_roomcast"))
        .args(args)
        .env_clear()
        .envs(settings)
        .env("USER", "kim")
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within("the command ends", command).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended {
        code: output.status.code().unwrap(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

async fn run(world: &World, args: &[&str]) -> Ended {
    roomcast(world.redis.settings(), args).await
}

async fn cut_soon(clients: &[Client]) {
    for client in clients {
        tokio::time::timeout(SOON, client.expect("security:notice"))
            .await
            .expect("no notice")
            .unwrap();
        tokio::time::timeout(SOON, client.closed()).await.expect("not cut");
    }
}

/// Bans a scope, in which `client` connects to each node, and lifts the ban again.
async fn banned_and_back(
    world: &World,
    scope: &str,
    refused: fn(&ConnectError) -> bool,
    client: impl Fn(usize) -> Builder,
) {
    let clients = [client(1).connect().await.unwrap(), client(2).connect().await.unwrap()];
    let stranger = world.connect(1, 39).await;
    let set = run(world, &["ban", "add", scope, "--for", "2h", "--reason", "spam"]).await;
    assert!(
        set.code == 0 && set.out.contains("is banned until"),
        "{} {}",
        set.out,
        set.err
    );
    cut_soon(&clients).await;
    assert!(stranger.is_connected());
    for node in 0..3 {
        until("the handshake is refused", SOON, || async {
            client(node).connect().await.is_err_and(|error| refused(&error))
        })
        .await;
    }
    let removed = run(world, &["ban", "remove", scope]).await;
    assert!(
        removed.out.contains("no longer banned"),
        "{} {}",
        removed.out,
        removed.err
    );
    for node in 0..3 {
        until("the handshake is let in", SOON, || async {
            client(node).connect().await.is_ok()
        })
        .await;
    }
    let shown = run(world, &["ban", "show", scope, "--json"]).await.json();
    assert_eq!(shown["ban"], Value::Null);
    let acts: Vec<[&Value; 3]> = shown["audit"]
        .as_array()
        .unwrap()
        .iter()
        .map(|act| [&act["act"], &act["actor"], &act["reason"]])
        .collect();
    assert_eq!(json!(acts), json!([["unban", "kim", ""], ["ban", "kim", "spam"]]));
}

fn is_forbidden(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Http { status: 403, .. })
}

fn is_told(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Refused { message } if message == "you're banned")
}

#[tokio::test(flavor = "multi_thread")]
async fn ban_of_an_operator_holds_on_every_node_until_it_is_lifted() {
    let world = World::start(3).await;
    let from = |node: usize, address: &str| world.client(node, 0).local_address(address.parse().unwrap());
    banned_and_back(&world, "127.0.3.1", is_forbidden, |node| from(node, "127.0.3.1")).await;
    banned_and_back(&world, "127.0.4.0/24", is_forbidden, |node| {
        from(node, ["127.0.4.1", "127.0.4.2", "127.0.4.3"][node])
    })
    .await;
    banned_and_back(&world, "user:p4", is_told, |node| world.client(node, 4)).await;

    let (access, refresh) = world.services.login(8).await;
    let auth = json!({"accessToken": access, "refreshToken": refresh, "userAgent": USER_AGENT, "username": "user8"});
    let client = |node| world.client(node, 8).auth(auth.clone());
    let first = client(0).connect().await.unwrap();
    let login = listed(&world, first.sid()).await["login"].as_str().unwrap().to_owned();
    banned_and_back(&world, &format!("session:{login}"), is_told, client).await;
}

async fn request(address: std::net::SocketAddr, method: &str, path: &str, token: &str, body: Value) -> (u16, Value) {
    let mut request = reqwest::Client::new()
        .request(method.parse().unwrap(), format!("http://{address}/admin/{path}"))
        .bearer_auth(token);
    if !body.is_null() {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

async fn get(world: &World, path: &str) -> (u16, Value) {
    request(world.nodes[0].ops_address, "GET", path, "admin", Value::Null).await
}

/// The session of a socket, as soon as it is known.
async fn listed(world: &World, socket: &str) -> Value {
    let found = std::sync::Mutex::new(None);
    until("the socket is listed", Duration::from_secs(10), || async {
        let list = run(world, &["sessions", "list", "--json"]).await.json();
        let session = list["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|session| session["socket"] == socket);
        *found.lock().unwrap() = session.cloned();
        session.is_some()
    })
    .await;
    found.into_inner().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_show_who_is_where_and_kicked_clients_may_come_back_at_once() {
    let world = World::start(3).await;
    let (first, second, other) = (
        world.connect(0, 0).await,
        world.connect(1, 0).await,
        world.connect(2, 1).await,
    );
    let mut nodes = HashMap::new();
    for client in [&first, &second, &other] {
        let session = listed(&world, client.sid()).await;
        assert_eq!(session["ip"], "127.0.0.1");
        nodes.insert(client.sid(), session["node"].as_str().unwrap().to_owned());
    }
    assert_ne!(nodes[first.sid()], nodes[second.sid()]);

    let table = run(&world, &["sessions", "list"]).await;
    let rows = table.rows(&["USER", "LOGIN", "ADDRESS", "NODE", "SINCE", "SOCKET", "ROOMS"]);
    assert_eq!(rows.len(), 3);
    for (row, client) in rows.iter().zip([&first, &second, &other]) {
        assert_eq!(
            (row[3].as_str(), row[5].as_str()),
            (nodes[client.sid()].as_str(), client.sid())
        );
        assert!(row[4].ends_with(" ago"), "{row:?}");
    }
    let few = run(&world, &["sessions", "list", "--limit", "2"]).await;
    assert!(few.out.contains("2 of 3; --limit shows more."), "{}", few.out);
    let count = async |args: &[&str]| {
        let args = [&["sessions", "list", "--json"], args].concat();
        run(&world, &args).await.json()["total"].clone()
    };
    assert_eq!(count(&["--user", "p0"]).await, 2);
    assert_eq!(count(&["--user", "p0", "--node", &nodes[first.sid()][..8]]).await, 1);
    assert_eq!(count(&["--ip", "127.0.0.0/8"]).await, 3);
    assert_eq!(count(&["--ip", "192.0.2.7"]).await, 0);

    let kicked = run(&world, &["sessions", "kick", "--user", "p0", "--by", "lee", "--json"])
        .await
        .json();
    assert_eq!(kicked["sockets"], 2);
    for client in [&first, &second] {
        let notice = tokio::time::timeout(SOON, client.expect("security:notice"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(notice[0]["code"], "kicked");
        tokio::time::timeout(SOON, client.closed()).await.unwrap();
    }
    assert!(other.is_connected());
    let back = world.connect(1, 0).await;
    let told = run(&world, &["sessions", "kick", "--socket", back.sid()]).await;
    assert!(told.out.starts_with("socket:"), "{}", told.out);
    cut_soon(&[back]).await;
    let back = world.connect(1, 0).await;
    run(&world, &["sessions", "kick", "--ip", "127.0.0.1"]).await;
    cut_soon(&[back, other]).await;
    world.connect(2, 1).await;
    let audit = get(&world, "audit?limit=3").await.1["audit"].clone();
    let acts: Vec<_> = audit
        .as_array()
        .unwrap()
        .iter()
        .map(|act| [&act["act"], &act["actor"]])
        .collect();
    assert_eq!(json!(acts), json!([["kick", "kim"], ["kick", "kim"], ["kick", "lee"]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_bans_and_sockets_are_counted_in_full_and_shown_in_part() {
    let world = World::start(1).await;
    let redis = Redis::start(&world.config()).unwrap();
    within("Redis is connected", redis.wait_connected()).await;
    for n in 0..1200_u32 {
        let scope = format!("ip:{}", std::net::Ipv4Addr::from(0xC612_0000 + n))
            .parse()
            .unwrap();
        let term = Term::For(Duration::from_secs(3600));
        let (ban, _) = redis.set_ban(&scope, "test", "test", term).await.unwrap();
        redis.list_ban(&ban).await.unwrap();
        let socket = OwnedSocket {
            socket: format!("s{n}"),
            user: UserId::new("many").unwrap(),
            rooms: vec![],
            joined: vec![],
            leases: vec![],
            login: None,
            ip: None,
            since: 0,
        };
        redis.register_socket("elsewhere", &socket, &socket).await.unwrap();
    }
    redis
        .announce_node("elsewhere", roomcast::redis::Load::default())
        .await
        .unwrap();
    run(&world, &["ban", "add", "198.18.0.0/15"]).await;

    let table = run(&world, &["ban", "list", "--kind", "ip", "--limit", "2"]).await;
    assert!(
        table.out.ends_with("The newest 2 of 1201; --limit shows more.\n"),
        "{}",
        table.out
    );
    let first = &table.rows(&["SCOPE", "ENDS", "REASON", "BY", "SINCE", "LEVEL"])[0];
    assert_eq!(first[..4], ["ip:198.18.0.0/15", "in 24 h", "operator", "kim"]);
    assert_eq!(
        run(&world, &["ban", "list", "--kind", "user", "--json"]).await.json()["total"],
        0
    );
    let holding = run(&world, &["ban", "list", "--ip", "198.18.0.9", "--json"])
        .await
        .json();
    assert_eq!(holding["total"], 2, "its own, and its network's");
    assert!(
        run(&world, &["ban", "list", "--ip", "192.0.2.7"])
            .await
            .out
            .contains("192.0.2.7 is not banned")
    );
    let sessions = run(&world, &["sessions", "list", "--limit", "1", "--json"])
        .await
        .json();
    assert_eq!(sessions["total"], 1200);
}

#[tokio::test(flavor = "multi_thread")]
async fn command_that_cannot_be_carried_out_says_why() {
    let world = World::start(0).await;
    for args in [
        &["ban", "add", "p1"][..],
        &["ban", "show", "room:r"],
        &["ban", "remove", "user:"],
    ] {
        let ended = run(&world, args).await;
        assert!(
            ended.code == 64 && ended.err.contains("scope "),
            "{args:?}: {}",
            ended.err
        );
    }
    let ended = run(&world, &["ban", "add", "user:p1", "--for", "60"]).await;
    assert!(
        ended.code == 64 && ended.err.contains("30m, 2h, 7d or forever"),
        "{}",
        ended.err
    );
    assert_eq!(run(&world, &["sessions", "kick"]).await.code, 64);
    assert_eq!(
        run(&world, &["sessions", "kick", "--user", "p1", "--ip", "::1"])
            .await
            .code,
        64
    );
    let ended = run(&world, &["ban", "remove", "user:p1"]).await;
    assert_eq!((ended.code, ended.err.trim()), (1, "roomcast: user:p1 was not banned"));
    let ended = run(&world, &["ban", "add", "10.0.0.0/8"]).await;
    assert!(
        ended.code == 0 && ended.err.contains("TRUSTED_PROXIES"),
        "{}",
        ended.err
    );

    let began = Instant::now();
    let nowhere = vec![("REDIS_URL", "redis://127.0.0.1:1".to_owned())];
    let ended = roomcast(nowhere, &["sessions", "list"]).await;
    assert!(ended.code == 69 && ended.err.contains("REDIS_URL"), "{}", ended.err);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}
