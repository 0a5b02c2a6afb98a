//! The verdict on each room: its log, its acks, its writers; the readers' views are judged next door.

use std::collections::{HashMap, HashSet};

use super::names::Name;
use super::truth::{Truth, place};
use super::{Checker, LostTail, Outcome, Place, Report, Room, Spot, Violation, view};

pub(super) fn judge(checker: &Checker) -> Report {
    let mut report = Report {
        counts: checker.counts.clone(),
        ..Report::default()
    };
    for (name, room) in &checker.rooms {
        let room_name = checker.names.text(*name);
        report.counts.rooms += 1;
        let truth = Truth::of(room, &room_name, &checker.names, &mut report);
        report.counts.logged += room.log.as_ref().map_or(0, Vec::len) as u64;
        let mut case = Case {
            checker,
            room,
            room_name,
            truth,
            report: &mut report,
        };
        case.judge_stored();
        case.judge_acks();
        case.judge_writers();
        case.judge_archive();
        view::judge(&mut case);
    }
    report
}

/// One room before the judge.
pub(super) struct Case<'a> {
    pub checker: &'a Checker,
    pub room: &'a Room,
    pub room_name: String,
    pub truth: Truth,
    pub report: &'a mut Report,
}

impl Case<'_> {
    pub fn text(&self, name: Name) -> String {
        self.checker.names.text(name)
    }

    fn locate(&self, spot: Spot) -> (String, Place) {
        (self.room_name.clone(), place(&self.checker.names, spot))
    }

    /// No message twice, nothing that nobody sent, nothing that was refused.
    fn judge_stored(&mut self) {
        let mut first_at = HashMap::new();
        let source = if self.truth.logged { "the log" } else { "its readers" };
        for item in self.truth.items.clone() {
            let Some(key) = item.key else { continue };
            if let Some(first) = first_at.insert(key, item.at) {
                let (room, at) = self.locate(item.at);
                let first = place(&self.checker.names, first);
                self.report.add(Violation::StoredTwice {
                    room,
                    key: self.text(key),
                    first,
                    second: at,
                });
                continue;
            }
            match self.room.sent.get(&key) {
                None => {
                    let (room, at) = self.locate(item.at);
                    let key = self.text(key);
                    self.report.add(Violation::Alien {
                        room,
                        key,
                        at,
                        seen_by: source.to_owned(),
                    });
                }
                Some(sent) => match sent.outcome {
                    Outcome::Refused => {
                        let (room, at) = self.locate(item.at);
                        let (writer, key) = (self.text(sent.writer), self.text(key));
                        self.report.add(Violation::RefusedStored { room, writer, key, at });
                    }
                    Outcome::Uncertain | Outcome::Unanswered => self.report.counts.uncertain_stored += 1,
                    Outcome::Acked(_) => {}
                },
            }
        }
    }

    /// What was promised stands where it was promised.
    fn judge_acks(&mut self) {
        for (writer, key) in &self.room.strays {
            let (room, writer, key) = (self.room_name.clone(), self.text(*writer), self.text(*key));
            self.report.add(Violation::AckAlien { room, writer, key });
        }
        for (key, first, second) in &self.room.contradictions {
            let (first, second) = (
                place(&self.checker.names, first.at),
                place(&self.checker.names, second.at),
            );
            let (room, key) = (self.room_name.clone(), self.text(*key));
            self.report.add(Violation::AckContradiction {
                room,
                key,
                first,
                second,
            });
        }
        let stands: HashMap<Name, usize> = self
            .truth
            .items
            .iter()
            .enumerate()
            .filter_map(|(position, item)| Some((item.key?, position)))
            .rev()
            .collect();
        let mut sent: Vec<_> = self.room.sent.iter().collect();
        sent.sort_unstable_by_key(|(_, sent)| sent.order);
        for (key, sent) in sent {
            self.report.counts.sent += 1;
            let ack = match sent.outcome {
                Outcome::Acked(ack) => ack,
                Outcome::Refused => {
                    self.report.counts.refused += 1;
                    continue;
                }
                Outcome::Uncertain | Outcome::Unanswered => {
                    self.report.counts.uncertain += 1;
                    continue;
                }
            };
            self.report.counts.acked += 1;
            let stored = stands
                .get(key)
                .and_then(|position| self.truth.items.get(*position))
                .copied();
            if stored.is_some_and(|item| item.at == ack.at && item.id == ack.id) {
                continue;
            }
            let (room, acked) = self.locate(ack.at);
            let (writer, key_text) = (self.text(sent.writer), self.text(*key));
            match stored {
                Some(item) => {
                    let found = place(&self.checker.names, item.at);
                    self.report.add(Violation::AckMisplaced {
                        room,
                        writer,
                        key: key_text,
                        acked,
                        found,
                    });
                }
                None if self.checker.lost_tail == LostTail::Acked && self.truth.is_announced_loss(ack.at) => {
                    self.report.counts.lost_acked += 1;
                    self.report.lost_at.push(ack.ts);
                }
                None if self.truth.is_trimmed(ack.at) => self.report.counts.unverifiable += 1,
                None => self.report.add(Violation::AckLost {
                    room,
                    writer,
                    key: key_text,
                    at: acked,
                }),
            }
        }
    }

    /// Each writer's messages stand in the order of sending, and server time rises.
    fn judge_writers(&mut self) {
        let mut last_of: HashMap<Name, (usize, Name)> = HashMap::new();
        let mut newest_of: HashMap<Name, (usize, Name)> = HashMap::new();
        let mut seen = HashSet::new();
        let mut last_ts = 0;
        for item in self.truth.items.clone() {
            let Some((key, sent)) = item.key.and_then(|key| Some((key, self.room.sent.get(&key)?))) else {
                continue;
            };
            if !seen.insert(key) {
                continue;
            }
            if let Outcome::Acked(ack) = sent.outcome {
                if ack.ts <= last_ts {
                    let (room, at) = self.locate(item.at);
                    self.report.add(Violation::TimeNotRising {
                        room,
                        at,
                        ts: ack.ts,
                        before: last_ts,
                    });
                }
                last_ts = last_ts.max(ack.ts);
            }
            let newest = newest_of.entry(sent.writer).or_insert((sent.order, key));
            if sent.settled.is_some_and(|settled| newest.0 >= settled) {
                let (room, at) = self.locate(item.at);
                let (writer, key, later_key) = (self.text(sent.writer), self.text(key), self.text(newest.1));
                self.report.add(Violation::WriterOrder {
                    room,
                    writer,
                    key,
                    at,
                    later_key,
                });
                continue;
            }
            *newest = (*newest).max((sent.order, key));
            // A resend may have landed at its first or at its last try.
            if sent.tries > 1 {
                continue;
            }
            match last_of.get(&sent.writer) {
                Some((order, later)) if *order > sent.order => {
                    let (room, at) = self.locate(item.at);
                    let (writer, key, later_key) = (self.text(sent.writer), self.text(key), self.text(*later));
                    self.report.add(Violation::WriterOrder {
                        room,
                        writer,
                        key,
                        at,
                        later_key,
                    });
                }
                _ => {
                    last_of.insert(sent.writer, (sent.order, key));
                }
            }
        }
    }

    /// The archive has everything that stands in the log, each message once.
    fn judge_archive(&mut self) {
        let Some(archive) = &self.room.archive else { return };
        self.report.counts.archived += archive.len() as u64;
        let mut places: HashMap<Name, Spot> = HashMap::new();
        for item in archive {
            let Some(key) = item.key else { continue };
            match places.get(&key).copied() {
                Some(first) if first != item.at => {
                    // A resend after a lost tail: the archive may have been faster than the failover.
                    let excused = |at| self.checker.lost_tail != LostTail::Never && self.truth.is_announced_loss(at);
                    if !excused(first) && !excused(item.at) {
                        let ((room, first), (_, second)) = (self.locate(first), self.locate(item.at));
                        let key = self.text(key);
                        self.report.add(Violation::ArchivedTwice {
                            room,
                            key,
                            first,
                            second,
                        });
                    }
                    if self.truth.index.contains_key(&item.at) {
                        places.insert(key, item.at);
                    }
                }
                _ => {
                    places.insert(key, item.at);
                }
            }
        }
        for item in self.truth.items.clone() {
            let Some(key) = item.key.filter(|key| places.get(key) != Some(&item.at)) else {
                continue;
            };
            let (room, at) = self.locate(item.at);
            let key = self.text(key);
            self.report.add(Violation::NotArchived { room, key, at });
        }
    }
}
