//! What the regression gate counts: one case per run, named by the argument, in a function that callgrind can toggle on.
#![expect(clippy::unwrap_used, reason = "a case that cannot be prepared must stop the run")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::types::Value;
use roomcast::auth::{Auth, issue_token};
use roomcast::chat::compose_message;
use roomcast::chat::feed::Feed;
use roomcast::chat::payload::Payload;
use roomcast::config::{Config, Source};
use roomcast::guard::Guard;
use roomcast::model::{Epoch, EventKind, Identity, Position, RoomEvent, RoomId, UserId};
use roomcast::redis::{Draft, Keys, LogPage, PostLimits, Redis, codec};
use roomcast::socket::{Event, Incoming, Packet, Stored, push_event, weight};
use roomcast::telemetry::Metrics;
use roomcast::upstream::Upstream;
use serde_json::value::RawValue;
use socketioxide_core::Value as Parsed;

/// In the order of a message's way, after the token.
const CASES: [&str; 13] = [
    "verify_hs256",
    "limit",
    "decode",
    "compose",
    "encode_post",
    "encode_ack",
    "read_live",
    "encode_event",
    "deliver_1",
    "deliver_100",
    "deliver_1000",
    "read_page",
    "gap_repair",
];
/// Repetitions of a case under callgrind: what differs from one to the next is small against their sum.
const TIMES: u32 = 100;
/// Events of the page that fills a hole.
const PAGE: u64 = 100;
const SECRET: &str = "a-secret-of-thirty-two-characters";
/// What a client sends.
const SENT: &str = r#"{"room":"r1","message":"hello, everybody here","cid":"c-1","color":"red"}"#;
/// What its members get.
const TOLD: &str = r#"{"color":"red","roomID":"r1","platformid":"u1","username":"Ann","message":"hello, everybody here","kind":"message","cid":"c-1","id":"1764000000000-7","ts":1764000000000,"timestamp":"2025-11-24T16:00:00.000Z","seq":7,"epoch":"e-1"}"#;

/// The only function whose instructions are counted, with all it calls.
#[inline(never)]
fn measured(times: u32, case: &mut dyn FnMut()) {
    for _ in 0..times {
        case();
    }
}

fn event(seq: u64) -> RoomEvent {
    RoomEvent {
        position: Position { ts: seq, seq },
        epoch: Epoch::from("e-1"),
        kind: EventKind::Message,
        json: raw(r#"{"message":"hello"}"#),
    }
}

fn page(top: u64, events: Vec<RoomEvent>) -> LogPage {
    LogPage {
        epoch: Epoch::from("e-1"),
        epochs: vec![(Epoch::from("e-1"), 1)],
        top: Position { ts: top, seq: top },
        floor: Position::default(),
        deleted: false,
        more: false,
        events,
    }
}

/// A feed whose members have everything up to the first event.
fn feed(members: u32) -> Feed<u32, u32> {
    let (mut feed, at) = (Feed::default(), Position { ts: 1, seq: 1 });
    for member in 0..members {
        let generation = feed.add_member(member, member, at, &page(1, Vec::new()));
        assert!(feed.go_live(&member, generation, at));
    }
    feed
}

fn identity() -> Identity {
    Identity {
        user: UserId::new("u1").unwrap(),
        username: "Ann".to_owned(),
        session: Some("s1".to_owned()),
        issued_at: None,
        expires_at: None,
    }
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn draft() -> Draft {
    let (raw, room) = (raw(SENT), RoomId::new("r1").unwrap());
    compose_message(&Payload::parse(&raw).unwrap(), &identity(), &room, 4000, "@gpt").unwrap()
}

/// The packet of a message, as the engine's parser hands it over.
fn packet() -> Parsed {
    Parsed::Str(format!("[\"message\",{SENT}]").into(), None)
}

fn config() -> Config {
    let pairs = [
        ("JWT_SECRET", SECRET),
        ("AUTH_MODE", "jwt"),
        // Required, and not asked.
        ("AUTH_URL", "http://127.0.0.1:1"),
        ("API_URL", "http://127.0.0.1:1"),
        ("VISION_APP_INFO", "x"),
    ];
    Config::read(&Source::from_pairs(pairs)).unwrap()
}

/// What every event is weighed by before it is queued.
fn limit() -> Box<dyn FnMut()> {
    // The default burst lets everything pass that is measured.
    let config = config();
    // Whatever connects is never polled: the rates need no Redis.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let redis = {
        let _context = runtime.enter();
        Redis::start(&config).unwrap()
    };
    let guard = Guard::new(&config, redis, Arc::new(Metrics::new().unwrap()), "node".to_owned());
    let (rate, user, packet) = (guard.event_rate(), identity().user, packet());
    Box::new(move || {
        let _runtime = &runtime;
        assert!(black_box(guard.take_event(&rate, &user, weight(&packet))).is_none());
    })
}

/// The answer of the script that reads a log.
fn log_answer() -> Vec<Value> {
    let entries = (1..=PAGE).map(|seq| format!("{} e-1 message - {TOLD}", Position { ts: seq, seq }).into());
    let entries = Value::Array(entries.collect());
    let (top, zero) = (PAGE.to_string(), "0");
    vec![
        "e-1".into(),
        "e-1=1".into(),
        top.clone().into(),
        top.into(),
        zero.into(),
        zero.into(),
        Value::Integer(0),
        Value::Integer(0),
        entries,
    ]
}

fn deliver(members: u32) -> Box<dyn FnMut()> {
    let (mut feed, mut seq) = (feed(members), 1);
    Box::new(move || {
        seq += 1;
        let event = event(seq);
        black_box(feed.offer(&event));
        for (_, member) in feed.live_members() {
            member.at = event.position;
        }
    })
}

fn prepare(case: &str) -> Option<Box<dyn FnMut()>> {
    Some(match case {
        "verify_hs256" => {
            let config = config();
            let auth = Auth::new(&config, Arc::new(Upstream::new(&config).unwrap())).unwrap();
            let token = issue_token(SECRET, &identity(), Duration::from_secs(3600)).unwrap();
            Box::new(move || drop(black_box(futures::executor::block_on(auth.verify(&token)).unwrap())))
        }
        "compose" => {
            let (identity, room) = (identity(), RoomId::new("r1").unwrap());
            let raw = raw(SENT);
            Box::new(move || {
                let payload = Payload::parse(&raw).unwrap();
                drop(black_box(
                    compose_message(&payload, &identity, &room, 4000, "@gpt").unwrap(),
                ));
            })
        }
        "limit" => limit(),
        "decode" => {
            let packet = packet();
            Box::new(move || {
                let incoming = Incoming {
                    packet: packet.clone(),
                    ack_id: Some(1),
                    at: Instant::now(),
                };
                let event = Event::new(incoming, 1);
                drop(black_box(event.payload().unwrap()));
            })
        }
        "encode_post" => {
            let (keys, room, drafts, contexts) =
                (Keys::new(64), RoomId::new("r1").unwrap(), [draft()], [String::new()]);
            let limits = PostLimits {
                log_max_len: 20_000,
                archive_max_bytes: 1 << 26,
            };
            Box::new(move || {
                drop(black_box(codec::post_call(
                    &keys, "PUBLISH", &room, &drafts, &contexts, limits,
                )));
            })
        }
        "encode_ack" => {
            let ack = Stored {
                ok: true,
                id: "1764000000000-7",
                seq: 7,
                epoch: "e-1",
                ts: 1_764_000_000_000,
                dup: false,
            };
            Box::new(move || drop(black_box(Packet::Ack(1, &ack).frame().unwrap())))
        }
        "read_live" => {
            let live = format!("1764000000000-7 e-1 message - {TOLD}");
            Box::new(move || drop(black_box(codec::read_live(&live).unwrap())))
        }
        "encode_event" => {
            let json = raw(TOLD);
            Box::new(move || {
                let mut frames = Vec::new();
                push_event(&mut frames, "message", &json);
                drop(black_box(frames));
            })
        }
        "read_page" => {
            let answer = log_answer();
            Box::new(move || {
                let page = codec::read_page(answer.clone()).unwrap();
                assert_eq!(page.events.len() as u64, PAGE);
                drop(black_box(page));
            })
        }
        "deliver_1" => deliver(1),
        "deliver_100" => deliver(100),
        "deliver_1000" => deliver(1000),
        "gap_repair" => {
            let (mut feed, mut seq) = (feed(10), 1);
            Box::new(move || {
                black_box(feed.offer(&event(seq + PAGE)));
                let page = page(seq + PAGE, (seq + 1..=seq + PAGE).map(event).collect());
                black_box(feed.check_page(&page));
                for event in &page.events {
                    black_box(feed.advance(event));
                }
                black_box(feed.finish_fill(false));
                seq += PAGE;
            })
        }
        _ => return None,
    })
}

/// Without an argument, or with cargo's own: the time of every case.
fn main() {
    let named = std::env::args().nth(1).filter(|name| !name.starts_with("--"));
    match named.as_deref() {
        Some("list") => CASES.iter().for_each(|case| println!("{case}")),
        Some(name) => measured(TIMES, &mut *prepare(name).unwrap()),
        None => {
            for name in CASES {
                let mut case = prepare(name).unwrap();
                measured(TIMES, &mut *case);
                let started = Instant::now();
                measured(TIMES, &mut *case);
                println!("{name:16} {:>12.2?}", started.elapsed() / TIMES);
            }
        }
    }
}
