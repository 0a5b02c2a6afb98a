//! Every kind of broken history is caught and named; clean ones pass.

use super::*;

mod failover;

const ROOM: &str = "r";

fn entry(seq: u64) -> Entry<'static> {
    in_epoch("e1", seq)
}

fn in_epoch(epoch: &'static str, seq: u64) -> Entry<'static> {
    let text = |prefix: &str| -> &'static str { Box::leak(format!("{prefix}{seq}").into_boxed_str()) };
    Entry {
        epoch,
        seq,
        id: text("id"),
        key: Some(text("k")),
    }
}

fn ack(checker: &mut Checker, writer: &str, entry: Entry<'_>) {
    let receipt = Receipt {
        id: entry.id,
        epoch: entry.epoch,
        seq: entry.seq,
        ts: 1000 + entry.seq,
    };
    checker.acked(writer, ROOM, entry.key.unwrap(), receipt);
}

/// Writer `w` sent and got acks for `1..=last`.
fn written(mode: Mode, last: u64) -> Checker {
    let mut checker = Checker::new(mode);
    for seq in 1..=last {
        checker.sent("w", ROOM, entry(seq).key.unwrap());
        ack(&mut checker, "w", entry(seq));
    }
    checker
}

fn logged(mode: Mode, last: u64) -> Checker {
    let mut checker = written(mode, last);
    checker.log(ROOM, (1..=last).map(entry));
    checker
}

fn read(checker: &mut Checker, reader: &str, seqs: impl IntoIterator<Item = u64>) {
    checker.joined(reader, ROOM, Some(("", 0)));
    for seq in seqs {
        checker.received(reader, ROOM, entry(seq));
    }
}

/// Asserts that there is exactly one violation and that it prints as expected.
fn assert_only(checker: &Checker, says: &str) {
    let report = checker.finish();
    assert_eq!(report.total_violations, 1, "{report}");
    assert!(report.to_string().contains(says), "{report}");
}

fn assert_clean(checker: &Checker) -> Report {
    let report = checker.finish();
    assert!(report.is_clean(), "{report}");
    report
}

#[test]
fn a_clean_history_passes_with_and_without_a_log() {
    for mode in [Mode::Strict, Mode::Legacy] {
        for mut checker in [written(mode, 5), logged(mode, 5)] {
            read(&mut checker, "a", 1..=5);
            checker.joined("b", ROOM, Some(("e1", 2)));
            (3..=5).for_each(|seq| checker.received("b", ROOM, entry(seq)));
            checker.joined("c", ROOM, None);
            (4..=5).for_each(|seq| checker.received("c", ROOM, entry(seq)));
            let report = assert_clean(&checker);
            assert_eq!(
                (report.counts.expected, report.counts.delivered, report.counts.readers),
                (10, 10, 3)
            );
            assert_eq!((report.counts.sent, report.counts.acked), (5, 5));
        }
    }
}

#[test]
fn a_skipped_event_is_a_gap() {
    for mut checker in [written(Mode::Strict, 5), logged(Mode::Legacy, 5)] {
        read(&mut checker, "a", [1, 2, 5]);
        assert_only(&checker, "room r: reader a missed 2 from e1#3 to e1#4");
        assert!((checker.finish().delivered_ratio() - 0.6).abs() < 1e-9);
    }
}

#[test]
fn a_place_nobody_ever_saw_is_a_gap_even_without_a_log() {
    let mut checker = Checker::new(Mode::Strict);
    for seq in [1, 2, 4] {
        checker.sent("w", ROOM, entry(seq).key.unwrap());
        ack(&mut checker, "w", entry(seq));
    }
    read(&mut checker, "a", [1, 2, 4]);
    assert_only(&checker, "reader a missed 1 from e1#3 to e1#3");
}

#[test]
fn a_missing_start_and_a_missing_tail_are_caught() {
    let mut checker = logged(Mode::Strict, 5);
    read(&mut checker, "a", [2, 3, 4, 5]);
    assert_only(&checker, "reader a missed 1 from e1#1 to e1#1");
    let mut checker = written(Mode::Strict, 5);
    read(&mut checker, "a", [1, 2, 3]);
    assert_only(&checker, "reader a never got the last 2, from e1#4 to e1#5");
    checker.left("a", ROOM);
    assert_clean(&checker);
}

#[test]
fn a_duplicate_is_caught() {
    for mode in [Mode::Strict, Mode::Legacy] {
        let mut checker = logged(mode, 3);
        read(&mut checker, "a", [1, 2, 2, 3]);
        assert_only(&checker, "room r: reader a got e1#2 twice");
        assert_eq!(checker.finish().counts.duplicates, 1);
    }
}

#[test]
fn a_replay_after_a_reconnect_may_repeat_only_in_legacy_mode_and_only_once() {
    let history = |mode, replay: &[u64]| {
        let mut checker = logged(mode, 4);
        read(&mut checker, "a", [1, 2, 3]);
        checker.reconnected("a", ROOM);
        replay.iter().for_each(|seq| checker.received("a", ROOM, entry(*seq)));
        checker
    };
    assert_clean(&history(Mode::Legacy, &[2, 3, 4]));
    assert_clean(&history(Mode::Strict, &[4]));
    assert_eq!(history(Mode::Strict, &[2, 3, 4]).finish().total_violations, 2);
    assert_only(&history(Mode::Legacy, &[2, 3, 3, 4]), "reader a got e1#3 twice");
}

#[test]
fn a_swap_is_disorder_and_nothing_else() {
    for mut checker in [written(Mode::Strict, 4), logged(Mode::Legacy, 4)] {
        read(&mut checker, "a", [1, 3, 2, 4]);
        assert_only(&checker, "room r: reader a got e1#2 after e1#3");
    }
}

#[test]
fn a_lost_ack_is_caught_in_the_log() {
    let mut checker = written(Mode::Strict, 3);
    checker.log(ROOM, [entry(1), entry(2)]);
    assert_only(&checker, "room r: \"k3\" of writer w, acked at e1#3, is not in the log");
}

#[test]
fn a_lost_ack_shows_without_a_log_as_a_missing_tail() {
    let mut checker = written(Mode::Strict, 3);
    read(&mut checker, "a", [1, 2]);
    assert_only(&checker, "reader a never got the last 1, from e1#3");
}

#[test]
fn an_alien_message_is_caught_once() {
    for log in [false, true] {
        let mut checker = written(Mode::Strict, 2);
        if log {
            checker.log(ROOM, (1..=3).map(entry));
        }
        read(&mut checker, "a", 1..=3);
        read(&mut checker, "b", 1..=3);
        assert_only(&checker, "\"k3\" at e1#3 was never sent");
    }
}

#[test]
fn a_message_of_another_room_is_alien() {
    let mut checker = written(Mode::Strict, 1);
    checker.joined("a", "other", None);
    checker.received("a", "other", entry(1));
    assert_only(&checker, "room other: \"k1\" at e1#1 was never sent");
}

#[test]
fn events_of_the_server_itself_need_no_sender() {
    let mut checker = written(Mode::Strict, 1);
    checker.joined("a", ROOM, None);
    checker.received("a", ROOM, entry(1));
    checker.received("a", ROOM, Entry { key: None, ..entry(2) });
    assert_clean(&checker);
}

#[test]
fn a_hole_in_the_log_is_caught_and_the_readers_are_not_blamed() {
    let mut checker = Checker::new(Mode::Strict);
    for seq in [1, 3] {
        checker.sent("w", ROOM, entry(seq).key.unwrap());
        ack(&mut checker, "w", entry(seq));
    }
    checker.log(ROOM, [entry(1), entry(3)]);
    read(&mut checker, "a", [1, 3]);
    assert_only(&checker, "room r: the log goes from e1#1 to e1#3");
}

#[test]
fn two_observers_of_one_place_must_see_the_same() {
    let mut checker = written(Mode::Strict, 2);
    read(&mut checker, "a", [1, 2]);
    checker.joined("b", ROOM, None);
    checker.received("b", ROOM, Entry { seq: 2, ..entry(1) });
    assert_only(&checker, "e1#2 holds \"k2\" but reader b saw \"k1\"");
}

#[test]
fn a_delivery_outside_the_log_is_caught() {
    let mut checker = written(Mode::Strict, 3);
    checker.uncertain("w", ROOM, "k4");
    let mut checker = {
        checker.sent("w", ROOM, "k9");
        checker.log(ROOM, (1..=3).map(entry));
        checker
    };
    read(&mut checker, "a", 1..=3);
    checker.received("a", ROOM, entry(9));
    let report = checker.finish();
    assert_eq!(
        report.count(|v| matches!(v, Violation::NotInLog { at, .. } if at.seq == 9)),
        1,
        "{report}"
    );
    assert_eq!(
        report.count(|v| matches!(v, Violation::AckAlien { key, .. } if key == "k4")),
        1,
        "{report}"
    );
}

#[test]
fn writers_keep_their_order_unless_they_resend() {
    let history = |resent: bool| {
        let mut checker = Checker::new(Mode::Strict);
        for key in ["k2", "k1"] {
            checker.sent("w", ROOM, key);
        }
        if resent {
            checker.sent("w", ROOM, "k2");
        }
        checker.log(ROOM, [entry(1), entry(2)]);
        checker
    };
    assert_only(
        &history(false),
        "\"k2\" of writer w stands at e1#2, behind \"k1\", which was sent later",
    );
    assert_clean(&history(true));
}

#[test]
fn outcomes_are_held_against_the_log() {
    let mut checker = Checker::new(Mode::Strict);
    (1..=3).for_each(|seq| checker.sent("w", ROOM, entry(seq).key.unwrap()));
    checker.uncertain("w", ROOM, "k1");
    checker.uncertain("w", ROOM, "k2");
    checker.refused("w", ROOM, "k3");
    checker.log(ROOM, [entry(1)]);
    let report = assert_clean(&checker);
    assert_eq!(
        (
            report.counts.uncertain,
            report.counts.uncertain_stored,
            report.counts.refused
        ),
        (2, 1, 1)
    );
    checker.log(ROOM, [entry(2), entry(3)]);
    assert_only(&checker, "\"k3\" of writer w was refused but stands at e1#3");
}

#[test]
fn a_message_stored_twice_is_caught() {
    let mut checker = written(Mode::Strict, 1);
    checker.log(ROOM, [entry(1), Entry { seq: 2, ..entry(1) }]);
    assert_only(&checker, "\"k1\" is stored at e1#1 and at e1#2");
}

#[test]
fn acks_must_tell_the_truth_and_the_same() {
    let mut checker = Checker::new(Mode::Strict);
    checker.sent("w", ROOM, "k1");
    ack(&mut checker, "w", Entry { seq: 7, ..entry(1) });
    checker.log(ROOM, [entry(1)]);
    assert_only(&checker, "was acked at e1#7 but stands at e1#1");
    let mut checker = logged(Mode::Strict, 1);
    ack(&mut checker, "w", Entry { seq: 2, ..entry(1) });
    let report = checker.finish();
    assert_eq!(
        report.count(|v| matches!(v, Violation::AckContradiction { .. })),
        1,
        "{report}"
    );
}

#[test]
fn server_time_must_rise() {
    let mut checker = Checker::new(Mode::Strict);
    for (key, seq) in [("k1", 1), ("k2", 2)] {
        checker.sent("w", ROOM, key);
        checker.acked(
            "w",
            ROOM,
            key,
            Receipt {
                id: entry(seq).id,
                epoch: "e1",
                seq,
                ts: 50,
            },
        );
    }
    assert_only(&checker, "ts 50 at e1#2 is not above 50");
}

#[test]
fn a_view_starts_anew_after_recovered_false_only() {
    let history = |recovered| {
        let mut checker = logged(Mode::Strict, 6);
        read(&mut checker, "a", [1, 2]);
        checker.reconnected("a", ROOM);
        checker.recovered("a", ROOM, recovered);
        (5..=6).for_each(|seq| checker.received("a", ROOM, entry(seq)));
        checker
    };
    assert_eq!(assert_clean(&history(false)).counts.told_unrecovered, 1);
    assert_only(&history(true), "reader a missed 2 from e1#3 to e1#4");
}

#[test]
fn epochs_follow_each_other_in_the_order_of_the_readers() {
    // The later epoch sorts first as text, and its numbers overlap: only what was seen tells the order.
    let mut checker = Checker::new(Mode::Strict);
    let all = [
        in_epoch("z", 1),
        in_epoch("z", 2),
        Entry {
            epoch: "a",
            seq: 2,
            id: "idx",
            key: Some("kx"),
        },
    ];
    all.iter().for_each(|entry| checker.sent("w", ROOM, entry.key.unwrap()));
    checker.joined("r1", ROOM, None);
    all.iter().for_each(|entry| checker.received("r1", ROOM, *entry));
    assert_clean(&checker);
    checker.joined("r2", ROOM, Some(("z", 1)));
    checker.received("r2", ROOM, all[2]);
    assert_only(&checker, "reader r2 missed 1 from z#2 to z#2");
    checker.joined("r3", ROOM, None);
    [2, 0]
        .iter()
        .for_each(|index: &usize| checker.received("r3", ROOM, all[*index]));
    assert!(checker.finish().count(|v| matches!(v, Violation::EpochOrder { .. })) > 0);
}

#[test]
fn a_trimmed_log_makes_older_history_unverifiable() {
    let mut checker = written(Mode::Strict, 6);
    checker.log(ROOM, (4..=6).map(entry));
    read(&mut checker, "a", 1..=6);
    let report = assert_clean(&checker);
    assert_eq!(report.counts.unverifiable, 6);
}

#[test]
fn a_report_of_many_violations_stays_readable() {
    let mut checker = logged(Mode::Strict, 500);
    read(&mut checker, "a", (1..=500).step_by(2));
    let report = checker.finish();
    assert_eq!(report.total_violations, 250);
    assert!(report.to_string().ends_with("… and 200 more"), "{report}");
}
