//! What the regression gate counts: one case per run, named by the argument, in a function that callgrind can toggle on.
#![expect(clippy::unwrap_used, reason = "a case that cannot be prepared must stop the run")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast::auth::{Auth, issue_token};
use roomcast::chat::compose_message;
use roomcast::chat::feed::Feed;
use roomcast::chat::payload::Payload;
use roomcast::config::{Config, Source};
use roomcast::model::{Epoch, EventKind, Identity, Position, RoomEvent, RoomId, UserId};
use roomcast::redis::LogPage;
use roomcast::upstream::Upstream;
use serde_json::value::RawValue;

const CASES: [&str; 5] = ["verify_hs256", "compose", "deliver_1", "deliver_1000", "gap_repair"];
/// Repetitions of a case under callgrind: what differs from one to the next is small against their sum.
const TIMES: u32 = 100;
/// Events of the page that fills a hole.
const PAGE: u64 = 100;
const SECRET: &str = "a-secret-of-thirty-two-characters";

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
        json: RawValue::from_string(r#"{"message":"hello"}"#.to_owned()).unwrap(),
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
            let config = Config::read(&Source::from_pairs([("JWT_SECRET", SECRET), ("AUTH_MODE", "jwt")])).unwrap();
            let auth = Auth::new(&config, Arc::new(Upstream::new(&config).unwrap())).unwrap();
            let token = issue_token(SECRET, &identity(), Duration::from_secs(3600)).unwrap();
            Box::new(move || drop(black_box(futures::executor::block_on(auth.verify(&token)).unwrap())))
        }
        "compose" => {
            let (identity, room) = (identity(), RoomId::new("r1").unwrap());
            let text = r#"{"room":"r1","message":"hello, everybody here","cid":"c-1","color":"red"}"#;
            let raw = RawValue::from_string(text.to_owned()).unwrap();
            Box::new(move || {
                let payload = Payload::parse(&raw).unwrap();
                drop(black_box(
                    compose_message(&payload, &identity, &room, 4000, "@gpt").unwrap(),
                ));
            })
        }
        "deliver_1" => deliver(1),
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
