//! Lost tails, resends and the archive.

use super::*;

/// Acked and seen up to e1#4, of which a failover took 3 and 4; e2 goes on at 3.
fn failed_over(lost_tail: LostTail, told: bool) -> Checker {
    let mut checker = written(Mode::Strict, 4);
    checker.allow_lost_tail(lost_tail);
    let after = Entry {
        id: "id9",
        key: Some("k9"),
        ..in_epoch("e2", 3)
    };
    checker.sent("w", ROOM, "k9");
    ack(&mut checker, "w", Entry { seq: 3, ..after });
    checker.log(ROOM, [entry(1), entry(2), after]);
    read(&mut checker, "a", 1..=4);
    if told {
        checker.tail_lost("a", ROOM);
    }
    checker.received("a", ROOM, after);
    checker
}

fn rising(mut checker: Checker) -> Checker {
    // The acks above share their numbers, and with them their time.
    for room in checker.rooms.values_mut() {
        room.sent.values_mut().for_each(|sent| {
            if let Outcome::Acked(ack) = &mut sent.outcome {
                ack.ts = sent.order as u64 + 1;
            }
        });
    }
    checker
}

#[test]
fn a_lost_tail_is_excused_only_where_it_is_allowed_and_announced() {
    let report = assert_clean(&rising(failed_over(LostTail::Acked, true)));
    assert_eq!((report.counts.lost_acked, report.counts.lost_seen), (2, 2));
    let strict = rising(failed_over(LostTail::Unacked, true)).finish();
    assert_eq!(strict.count(|v| matches!(v, Violation::AckLost { .. })), 2, "{strict}");
    assert_eq!(strict.total_violations, 2, "{strict}");
    let never = rising(failed_over(LostTail::Never, true)).finish();
    assert_eq!(never.total_violations, 4, "{never}");
}

#[test]
fn a_lost_tail_without_a_new_epoch_is_a_loss() {
    let mut checker = written(Mode::Strict, 3);
    checker.allow_lost_tail(LostTail::Acked);
    checker.log(ROOM, [entry(1), entry(2)]);
    assert_only(&checker, "acked at e1#3, is not in the log");
}

#[test]
fn a_hole_before_the_new_epoch_is_no_lost_tail() {
    let mut checker = written(Mode::Strict, 3);
    checker.allow_lost_tail(LostTail::Acked);
    checker.sent("w", ROOM, "k4");
    checker.log(ROOM, [entry(1), entry(3), in_epoch("e2", 4)]);
    let report = checker.finish();
    assert_eq!(
        report.count(|v| matches!(v, Violation::AckLost { at, .. } if at.seq == 2)),
        1,
        "{report}"
    );
}

#[test]
fn who_saw_a_lost_tail_must_be_told() {
    assert_only(
        &rising(failed_over(LostTail::Acked, false)),
        "reader a saw e1#4, which is lost, and went on at e2#3 without being told",
    );
}

#[test]
fn a_resend_stays_before_what_was_sent_after_its_ack() {
    let mut checker = Checker::new(Mode::Strict);
    checker.sent("w", ROOM, "k1");
    checker.sent("w", ROOM, "k1");
    checker.acked(
        "w",
        ROOM,
        "k1",
        Receipt {
            id: "id1",
            epoch: "e1",
            seq: 2,
            ts: 5,
        },
    );
    checker.sent("w", ROOM, "k2");
    let (first, second) = (in_epoch("e1", 1), in_epoch("e1", 2));
    checker.log(
        ROOM,
        [
            Entry {
                key: Some("k2"),
                ..first
            },
            Entry {
                key: Some("k1"),
                id: "id1",
                ..second
            },
        ],
    );
    assert_only(&checker, "\"k1\" of writer w stands at e1#2, behind \"k2\"");
}

#[test]
fn the_archive_must_hold_the_log_once() {
    let with = |entries: &[Entry<'_>]| {
        let mut checker = logged(Mode::Strict, 3);
        checker.archive(ROOM, entries.iter().copied());
        checker
    };
    let report = assert_clean(&with(&[entry(3), entry(1), entry(2), entry(2)]));
    assert_eq!(report.counts.archived, 4);
    assert_only(&with(&[entry(1), entry(3)]), "\"k2\" at e1#2 is not in the archive");
    assert_only(
        &with(&[entry(1), entry(2), entry(3), Entry { seq: 9, ..entry(2) }]),
        "the archive has \"k2\" at e1#2 and at e1#9",
    );
}
