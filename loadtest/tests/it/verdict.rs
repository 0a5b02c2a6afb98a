//! The fleet between itself and a server whose frames somebody loses, doubles or puts into another order.

use std::net::SocketAddr;
use std::time::Duration;

use roomcast_load::compare::floor;
use roomcast_load::fleet::{Curve, Fleet, Seat, Talk, Verdict, source};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};

const ROOMS: u32 = 4;
const MEMBERS: u32 = 3;
/// Every so many copies of a connection something happens.
const EVERY: usize = 5;

#[derive(Clone, Copy)]
enum Fault {
    None,
    Drop,
    Double,
    Swap,
}

/// The bare write loop, on a port of its own.
pub async fn server() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    tokio::spawn(floor::serve(address));
    while TcpStream::connect(address).await.is_err() {
        tokio::task::yield_now().await;
    }
    address
}

/// A way to the server on which copies of messages meet a fault.
async fn way(server: SocketAddr, fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(server).await.unwrap();
            tokio::spawn(async move {
                let (mut from_client, to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
                // It ends with the connection.
                let _ended = spoil(from_server, to_client, fault).await;
            });
        }
    });
    address
}

async fn spoil(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    fault: Fault,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(from.read_u8().await?);
    }
    to.write_all(&head).await?;
    let (mut copies, mut kept) = (0, Vec::new());
    loop {
        let mut frame = vec![from.read_u8().await?, from.read_u8().await?];
        let mut length = usize::from(frame[1]);
        if length == 126 {
            length = from.read_u16().await?.into();
            frame.extend((length as u16).to_be_bytes());
        }
        let begin = frame.len();
        frame.resize(begin + length, 0);
        from.read_exact(&mut frame[begin..]).await?;
        let is_copy = frame[begin..].starts_with(br#"42["message""#);
        copies += usize::from(is_copy);
        match fault {
            _ if !is_copy => to.write_all(&frame).await?,
            Fault::Drop if copies % EVERY == 0 => {}
            Fault::Double if copies % EVERY == 0 => to.write_all(&[&frame[..], &frame].concat()).await?,
            // Behind all that comes later.
            Fault::Swap if copies == 1 => kept = frame,
            Fault::Swap if copies == EVERY => to.write_all(&[&frame[..], &kept].concat()).await?,
            _ => to.write_all(&frame).await?,
        }
    }
}

fn talk() -> Talk {
    Talk {
        members: 0..(ROOMS * MEMBERS) as usize,
        rate: Curve::flat(200.0),
        lasts: Duration::from_millis(500),
        bytes: 80,
        questions: 0.0,
        poisson: false,
        seed: 1,
    }
}

/// A fleet with one writer in each room: the first.
fn fleet(server: SocketAddr) -> Fleet {
    let seat = |user: u32| Seat {
        server,
        from: source(0, user),
        room: format!("room-{}", user % ROOMS).into(),
        auth: "{}".into(),
        slow: None,
    };
    Fleet::new((0..ROOMS * MEMBERS).map(seat).collect(), |user| user < ROOMS as usize)
}

async fn judged(fault: Fault) -> (Verdict, u64) {
    let server = way(server().await, fault).await;
    let fleet = fleet(server);
    fleet.connect(1000.0).await;
    assert_eq!(fleet.tally().totals().joined, u64::from(ROOMS * MEMBERS));
    fleet.talk(talk()).await;
    let limit = if matches!(fault, Fault::Drop) { 1 } else { 10 };
    let verdict = fleet.settle(Duration::from_secs(limit)).await;
    let sent = fleet.tally().totals().sent;
    fleet.leave().await;
    (verdict, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_keeps_its_promises_is_found_clean() {
    let (verdict, sent) = judged(Fault::None).await;
    assert!(sent > 50, "{sent}");
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!(verdict.expected, sent * u64::from(MEMBERS));
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_never_come_are_lost() {
    let (verdict, sent) = judged(Fault::Drop).await;
    assert_eq!((verdict.doubled, verdict.disordered, verdict.unanswered), (0, 0, 0));
    let of_one = sent / u64::from(ROOMS);
    let least = of_one / EVERY as u64 * u64::from(ROOMS * MEMBERS);
    assert!(
        verdict.lost >= least && verdict.lost < verdict.expected / 2,
        "{verdict:?}, at least {least}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_come_again_are_doubled() {
    let (verdict, _) = judged(Fault::Double).await;
    assert_eq!((verdict.lost, verdict.disordered, verdict.unanswered), (0, 0, 0));
    assert!(
        verdict.doubled > 0 && verdict.doubled <= verdict.expected / EVERY as u64,
        "{verdict:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_comes_late_is_out_of_order() {
    let (verdict, _) = judged(Fault::Swap).await;
    assert_eq!((verdict.lost, verdict.doubled, verdict.unanswered), (0, 0, 0));
    // The first of each connection.
    assert_eq!(verdict.disordered, u64::from(ROOMS * MEMBERS), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_fleet_says_in_the_same_rooms_is_not_judged() {
    let whole = server().await;
    let through = way(whole, Fault::Drop).await;
    let (one, other) = (fleet(whole), fleet(through));
    tokio::join!(one.connect(1000.0), other.connect(1000.0));
    // Same senders and numbers, so that each could stand for the other.
    tokio::join!(one.talk(talk()), other.talk(talk()));
    let (clean, holed) = tokio::join!(
        one.settle(Duration::from_secs(10)),
        other.settle(Duration::from_secs(1))
    );
    assert!(clean.is_clean() && clean.expected > 0, "{clean:?}");
    assert_eq!((holed.doubled, holed.disordered), (0, 0));
    assert!(
        holed.lost > 0,
        "the messages of the other fleet filled the holes: {holed:?}"
    );
    tokio::join!(one.leave(), other.leave());
}
