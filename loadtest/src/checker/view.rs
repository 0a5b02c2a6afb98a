//! The verdict on what each reader saw of a room: one contiguous run in the room's order, once.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::judge::Case;
use super::truth::place;
use super::{Item, LostTail, Mode, Place, Spot, Step, Violation};

pub(super) fn judge(case: &mut Case<'_>) {
    let mut aliens = HashSet::new();
    for (reader, steps) in &case.room.readers {
        let reader = case.text(*reader);
        case.report.counts.readers += 1;
        let mut view = View::default();
        for step in steps {
            match *step {
                Step::Joined(from) => view.join(case, from),
                Step::Received(item) => view.receive(case, &reader, item, &mut aliens),
                Step::Reconnected => {
                    view.connection += 1;
                    view.left = false;
                    case.report.counts.reconnects += 1;
                }
                Step::Recovered(true) => {}
                Step::TailLost => view.lost = None,
                Step::Recovered(false) => {
                    case.report.counts.told_unrecovered += 1;
                    // Told: whatever lies between is not owed, and a fresh history may repeat the old one.
                    view.settle(case, &reader);
                    view.next = None;
                    view.lost = None;
                    view.seen.clear();
                }
                Step::Left => view.left = true,
            }
        }
        view.finish(case, &reader);
    }
}

/// What a reader has seen so far, as positions in the room's order.
#[derive(Default)]
struct View {
    /// The position owed next; `None` until the view begins.
    next: Option<usize>,
    /// Passed over, perhaps only late.
    missing: BTreeSet<usize>,
    /// Seen, and on which connection last.
    seen: HashMap<usize, u32>,
    connection: u32,
    left: bool,
    began: bool,
    /// A place it saw that a failover took away, until it is told.
    lost: Option<Spot>,
}

impl View {
    fn join(&mut self, case: &Case<'_>, from: Option<Spot>) {
        let from = from.and_then(|from| case.truth.after(from));
        if std::mem::take(&mut self.left) {
            // A new membership: its history may repeat what the old one saw.
            self.next = from;
            self.seen.clear();
        } else {
            // Joining again takes nothing back that is owed already.
            self.next = self.next.or(from);
        }
    }

    fn receive(&mut self, case: &mut Case<'_>, reader: &str, item: Item, aliens: &mut HashSet<Spot>) {
        case.report.counts.deliveries += 1;
        self.began = true;
        let Some(position) = case.truth.index.get(&item.at).copied() else {
            return self.receive_unknown(case, reader, item, aliens);
        };
        let truth = case.truth.items[position];
        if let Some(lost) = self.lost.filter(|lost| lost.epoch != item.at.epoch) {
            self.lost = None;
            let (room, lost) = (case.room_name.clone(), place(&case.checker.names, lost));
            case.report.add(Violation::LossHidden {
                room,
                reader: reader.to_owned(),
                lost,
                at: spot_place(case, position),
            });
        }
        if truth.id != item.id || truth.key != item.key {
            let name = |item: Item| case.text(item.key.unwrap_or(item.id));
            let (expected, found) = (name(truth), name(item));
            let (room, reader, at) = (case.room_name.clone(), reader.to_owned(), spot_place(case, position));
            case.report.add(Violation::Conflict {
                room,
                reader,
                at,
                expected,
                found,
            });
        }
        let next = self.next.unwrap_or(position);
        let repeated = match self.seen.insert(position, self.connection) {
            Some(connection) => Some(connection < self.connection),
            // What lies before the view's beginning was had by definition.
            None if position < next && !self.missing.contains(&position) => Some(self.connection > 0),
            None => None,
        };
        if let Some(after_reconnect) = repeated {
            case.report.counts.duplicates += 1;
            if case.checker.mode == Mode::Strict || !after_reconnect {
                let (room, reader, at) = (case.room_name.clone(), reader.to_owned(), spot_place(case, position));
                case.report.add(Violation::Duplicate { room, reader, at });
            }
            return;
        }
        case.report.counts.delivered += 1;
        case.report.counts.expected += 1;
        if self.missing.remove(&position) {
            let (at, later) = (spot_place(case, position), spot_place(case, next - 1));
            let room = case.room_name.clone();
            case.report.add(Violation::Disorder {
                room,
                reader: reader.to_owned(),
                at,
                later,
            });
            return;
        }
        self.missing.extend(next..position);
        if position == next {
            self.check_unseen(case, reader, position);
        }
        self.next = Some(position + 1);
    }

    fn receive_unknown(&mut self, case: &mut Case<'_>, reader: &str, item: Item, aliens: &mut HashSet<Spot>) {
        let (room, reader) = (case.room_name.clone(), reader.to_owned());
        let at = place(&case.checker.names, item.at);
        match item.key.filter(|key| !case.room.sent.contains_key(key)) {
            Some(key) => {
                // Once per place: a hundred readers of one alien are one fault.
                if aliens.insert(item.at) {
                    let key = case.text(key);
                    case.report.add(Violation::Alien {
                        room,
                        key,
                        at,
                        seen_by: reader,
                    });
                }
            }
            None if case.checker.lost_tail != LostTail::Never && case.truth.is_announced_loss(item.at) => {
                case.report.counts.lost_seen += 1;
                self.lost = Some(item.at);
            }
            None if case.truth.is_trimmed(item.at) => case.report.counts.unverifiable += 1,
            None => case.report.add(Violation::NotInLog { room, reader, at }),
        }
    }

    /// Without a log, a place that no observer ever saw shows only as a jump of the numbers.
    fn check_unseen(&self, case: &mut Case<'_>, reader: &str, position: usize) {
        let Some(before) = position.checked_sub(1).filter(|before| self.seen.contains_key(before)) else {
            return;
        };
        let (before, after) = (case.truth.items[before].at, case.truth.items[position].at);
        if case.truth.logged || before.epoch != after.epoch || before.seq + 1 == after.seq {
            return;
        }
        let count = after.seq - before.seq - 1;
        case.report.counts.expected += count;
        let from = place(
            &case.checker.names,
            Spot {
                seq: before.seq + 1,
                ..before
            },
        );
        let to = place(
            &case.checker.names,
            Spot {
                seq: after.seq - 1,
                ..after
            },
        );
        let room = case.room_name.clone();
        case.report.add(Violation::Gap {
            room,
            reader: reader.to_owned(),
            from,
            to,
            count,
        });
    }

    /// Reports what was passed over and never came, one violation per run of places.
    fn settle(&mut self, case: &mut Case<'_>, reader: &str) {
        let mut missing = std::mem::take(&mut self.missing).into_iter().peekable();
        while let Some(first) = missing.next() {
            let mut last = first;
            while let Some(next) = missing.next_if_eq(&(last + 1)) {
                last = next;
            }
            let (room, from, to, count) = expect_run(case, first, last);
            case.report.add(Violation::Gap {
                room,
                reader: reader.to_owned(),
                from,
                to,
                count,
            });
        }
    }

    fn finish(mut self, case: &mut Case<'_>, reader: &str) {
        self.settle(case, reader);
        let Some(next) = self.next else {
            case.report.counts.unanchored += u64::from(!self.began);
            return;
        };
        let Some(last) = case
            .truth
            .items
            .len()
            .checked_sub(1)
            .filter(|last| *last >= next && !self.left)
        else {
            return;
        };
        let (room, from, to, count) = expect_run(case, next, last);
        case.report.add(Violation::TailMissing {
            room,
            reader: reader.to_owned(),
            from,
            to,
            count,
        });
    }
}

/// Counts a run of places as expected, and names it for a violation.
fn expect_run(case: &mut Case<'_>, first: usize, last: usize) -> (String, Place, Place, u64) {
    let count = (last - first + 1) as u64;
    case.report.counts.expected += count;
    (
        case.room_name.clone(),
        spot_place(case, first),
        spot_place(case, last),
        count,
    )
}

fn spot_place(case: &Case<'_>, position: usize) -> Place {
    place(&case.checker.names, case.truth.items[position].at)
}
