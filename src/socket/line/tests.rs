use std::cell::RefCell;

use proptest::prelude::*;

use super::*;
use crate::socket::frame::push_text;

const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
const MARK: &str = "432147483647[[]]";

fn frame(text: &str) -> Bytes {
    let mut bytes = Vec::new();
    push_text(&mut bytes, &[text]);
    bytes.into()
}

/// A peer that takes so many bytes at each write; with none it is blocked.
#[derive(Default)]
struct Peer {
    got: RefCell<Vec<u8>>,
    window: RefCell<VecDeque<usize>>,
}

impl Peer {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self
            .window
            .borrow_mut()
            .pop_front()
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.got.borrow_mut().extend(&bytes[..taken]);
        Ok(taken)
    }

    /// The text of every frame that it got, which must be whole.
    fn texts(&self) -> Vec<String> {
        let got = self.got.borrow();
        let mut rest = got.strip_prefix(HEAD).expect("the head comes first");
        let mut texts = Vec::new();
        while !rest.is_empty() {
            assert_eq!(rest[0], 0x81, "a frame begins where another ends");
            let (length, from) = match rest[1] {
                126 => (usize::from(u16::from_be_bytes([rest[2], rest[3]])), 4),
                short => (usize::from(short), 2),
            };
            texts.push(String::from_utf8(rest[from..from + length].to_vec()).unwrap());
            rest = &rest[from + length..];
        }
        texts
    }
}

fn switched(peer: &Peer) -> Line {
    let mut line = Line::default();
    line.expect_switch();
    engine(&mut line, HEAD, peer);
    line
}

/// The engine repeats a write until all is taken.
fn engine(line: &mut Line, mut bytes: &[u8], peer: &Peer) {
    while !bytes.is_empty() {
        if let Ok(written) = line.write_engine(bytes, |bytes| peer.write(bytes)) {
            bytes = &bytes[written..];
        }
    }
}

#[test]
fn what_is_sent_waits_for_the_answer_to_connect() {
    let peer = Peer::default();
    let mut line = switched(&peer);
    assert_eq!(line.send(&frame("42[1]"), &|_| panic!("too early")), Err(NotSent::Gone));
    assert!(line.hold_behind(Sight::Connected));
    line.send(&frame("42[1]"), &|_| panic!("too early")).unwrap();
    engine(&mut line, &frame("0{}"), &peer);
    line.send(&frame("42[2]"), &|_| panic!("too early")).unwrap();
    assert!(!line.is_blocked(), "the engine holds it up, not the peer");
    engine(&mut line, &frame("40{}"), &peer);
    line.send(&frame("42[3]"), &|bytes| peer.write(bytes)).unwrap();
    assert_eq!(peer.texts(), ["0{}", "40{}", "42[1]", "42[2]", "42[3]"]);
}

#[test]
fn an_upgraded_socket_goes_on_behind_the_mark() {
    let peer = Peer::default();
    let mut line = switched(&peer);
    engine(&mut line, &frame("3probe"), &peer);
    assert!(line.hold_behind(Sight::Mark));
    assert!(!line.hold_behind(Sight::Mark), "it is in use");
    line.send(&frame("42[2]"), &|_| panic!("too early")).unwrap();
    engine(&mut line, &[frame("40{}"), frame("42[1]")].concat(), &peer);
    engine(&mut line, &frame(MARK), &peer);
    assert_eq!(peer.texts(), ["3probe", "40{}", "42[1]", MARK, "42[2]"]);
}

#[test]
fn a_mark_that_was_not_sent_leaves_the_engine_alone() {
    let mut line = switched(&Peer::default());
    assert!(line.hold_behind(Sight::Mark));
    line.let_go();
    assert_eq!(line.send(&frame("42[1]"), &|_| panic!("not ours")), Err(NotSent::Gone));
    assert!(line.hold_behind(Sight::Mark));
}

#[test]
fn a_peer_that_does_not_read_holds_up_a_bounded_number() {
    let peer = Peer::default();
    let mut line = switched(&peer);
    assert!(line.hold_behind(Sight::Connected));
    engine(&mut line, &frame("40"), &peer);
    let blocked = |_: &[u8]| Err(io::ErrorKind::WouldBlock.into());
    for _ in 0..WAITING_MAX {
        line.send(&frame("42[1]"), &blocked).unwrap();
    }
    assert!(line.is_blocked());
    assert_eq!(line.send(&frame("42[1]"), &blocked), Err(NotSent::Full));
    line.write_waiting(|bytes| peer.write(bytes)).unwrap();
    assert_eq!(peer.texts().len(), 1 + WAITING_MAX);
    let large = frame(&"x".repeat(2 * WAITING_BYTES_MAX));
    line.send(&large, &blocked).unwrap();
    assert_eq!(line.send(&frame("42[1]"), &blocked), Err(NotSent::Full));
    line.end();
    assert_eq!(
        line.send(&frame("42[1]"), &|_| panic!("nobody is there")),
        Err(NotSent::Gone)
    );
}

proptest! {
    #[test]
    fn frames_of_both_stay_whole_and_in_their_order(
        steps in prop::collection::vec((any::<bool>(), 0..300_usize), 1..40),
        window in prop::collection::vec(0..40_usize, 0..400),
        steal in prop::collection::vec(any::<bool>(), 1..60),
    ) {
        let peer = Peer::default();
        let mut line = switched(&peer);
        prop_assert!(line.hold_behind(Sight::Connected));
        engine(&mut line, &frame("40"), &peer);
        *peer.window.borrow_mut() = window.into();
        let mut steal = steal.iter().cycle();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for (number, (direct, padding)) in steps.into_iter().enumerate() {
            let text = format!("42[{number}]{}", "x".repeat(padding));
            if direct {
                line.send(&frame(&text), &|bytes| peer.write(bytes)).unwrap();
                ours.push(text);
            } else {
                let text = format!("2{text}");
                let bytes = frame(&text);
                let mut rest = &bytes[..];
                theirs.push(text);
                while !rest.is_empty() {
                    // A direct frame may come while the engine is within one.
                    if *steal.next().unwrap() && ours.len() < 100 {
                        let text = format!("42[s{}]", ours.len());
                        line.send(&frame(&text), &|bytes| peer.write(bytes)).unwrap();
                        ours.push(text);
                    }
                    if let Ok(written) = line.write_engine(rest, |bytes| peer.write(bytes)) {
                        rest = &rest[written..];
                    }
                }
            }
        }
        while line.write_waiting(|bytes| peer.write(bytes)).is_err() {}
        let texts = peer.texts();
        let got = |theirs: bool| texts[1..].iter().filter(move |text| text.starts_with("242") == theirs);
        prop_assert!(got(false).eq(&ours));
        prop_assert!(got(true).eq(&theirs));
    }
}
