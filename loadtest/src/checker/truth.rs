//! What really stands in a room: its log, or where none was given the union of what all observers saw.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::names::{Name, Names};
use super::{Item, Outcome, Place, Report, Room, Spot, Step, Violation};

pub(super) struct Truth {
    /// In the room's order.
    pub items: Vec<Item>,
    /// Where each place stands in `items`.
    pub index: HashMap<Spot, usize>,
    /// The order of epochs.
    ranks: HashMap<Name, usize>,
    /// Whether `items` is a log, and so complete.
    pub logged: bool,
}

impl Truth {
    pub fn of(room: &Room, room_name: &str, names: &Names, report: &mut Report) -> Self {
        let ranks = rank_epochs(room, room_name, names, report);
        let items = match &room.log {
            Some(log) => log.clone(),
            None => union(room, &ranks),
        };
        let mut index = HashMap::with_capacity(items.len());
        for (position, item) in items.iter().enumerate() {
            index.entry(item.at).or_insert(position);
        }
        let truth = Self {
            items,
            index,
            ranks,
            logged: room.log.is_some(),
        };
        if truth.logged {
            for pair in truth.items.windows(2) {
                let (before, after) = (pair[0].at, pair[1].at);
                let follows = match before.epoch == after.epoch {
                    true => before.seq.checked_add(1) == Some(after.seq),
                    // An epoch that comes back after another one cannot be right.
                    false => truth.ranks.get(&before.epoch) < truth.ranks.get(&after.epoch),
                };
                if !follows {
                    let (after, found) = (place(names, before), place(names, after));
                    report.add(Violation::LogBroken {
                        room: room_name.to_owned(),
                        after,
                        found,
                    });
                }
            }
        }
        truth
    }

    /// The position of the first event after a place that need not exist itself; `None` for an unknown epoch.
    pub fn after(&self, spot: Spot) -> Option<usize> {
        if let Some(position) = self.index.get(&spot) {
            return Some(position + 1);
        }
        if spot.seq == 0 && !self.ranks.contains_key(&spot.epoch) {
            return Some(0);
        }
        let from = self.order(spot)?;
        Some(self.items.partition_point(|item| self.order(item.at) <= Some(from)))
    }

    /// Whether a place was cut off the front of the log.
    pub fn is_trimmed(&self, spot: Spot) -> bool {
        match self.items.first() {
            Some(first) if self.logged => self.order(spot).is_some_and(|order| Some(order) < self.order(first.at)),
            _ => false,
        }
    }

    /// Whether a new epoch in the log says that a place of an older one is gone.
    pub fn is_announced_loss(&self, spot: Spot) -> bool {
        let Some(rank) = self.ranks.get(&spot.epoch).filter(|_| self.logged) else {
            return false;
        };
        let next = self
            .items
            .iter()
            .find(|item| self.ranks.get(&item.at.epoch) > Some(rank));
        next.is_some_and(|next| next.at.seq <= spot.seq)
    }

    fn order(&self, spot: Spot) -> Option<(usize, u64)> {
        self.ranks.get(&spot.epoch).map(|rank| (*rank, spot.seq))
    }
}

pub(super) fn place(names: &Names, spot: Spot) -> Place {
    Place {
        epoch: names.text(spot.epoch),
        seq: spot.seq,
    }
}

fn received(steps: &[Step]) -> impl Iterator<Item = &Item> {
    steps.iter().filter_map(|step| {
        if let Step::Received(item) = step {
            Some(item)
        } else {
            None
        }
    })
}

/// Every place anybody vouches for; who disagrees with the first witness is found later.
fn union(room: &Room, ranks: &HashMap<Name, usize>) -> Vec<Item> {
    let mut items = BTreeMap::new();
    let acked = room.sent.iter().filter_map(|(key, sent)| match sent.outcome {
        Outcome::Acked(ack) => Some(Item {
            at: ack.at,
            id: ack.id,
            key: Some(*key),
        }),
        _ => None,
    });
    for item in acked.chain(room.readers.values().flat_map(|steps| received(steps)).copied()) {
        let rank = ranks.get(&item.at.epoch).copied().unwrap_or(usize::MAX);
        items.entry((rank, item.at.seq)).or_insert(item);
    }
    items.into_values().collect()
}

/// Epochs are opaque: their order is the log's, else what the readers saw one after the other.
fn rank_epochs(room: &Room, room_name: &str, names: &Names, report: &mut Report) -> HashMap<Name, usize> {
    let mut chains: Vec<Vec<Name>> = Vec::new();
    if let Some(log) = &room.log {
        chains.push(distinct(log.iter().map(|item| item.at.epoch)));
    }
    chains.extend(
        room.readers
            .values()
            .map(|steps| distinct(received(steps).map(|item| item.at.epoch))),
    );
    // Acks know no order of their own; server time gives them one.
    let acks = room.sent.values().filter_map(|sent| match sent.outcome {
        Outcome::Acked(ack) => Some((ack.ts, ack.at.seq, ack.at.epoch)),
        _ => None,
    });
    let mut acks: Vec<_> = acks.collect();
    acks.sort_unstable();
    let weak = distinct(acks.into_iter().map(|(_, _, epoch)| epoch));

    let mut waiting = distinct(weak.into_iter().chain(chains.iter().flatten().copied()));
    let before: HashSet<(Name, Name)> = chains
        .iter()
        .flat_map(|chain| chain.windows(2).map(|pair| (pair[0], pair[1])))
        .collect();
    let mut ranks = HashMap::new();
    while !waiting.is_empty() {
        let free = |epoch: &Name| !waiting.iter().any(|other| before.contains(&(*other, *epoch)));
        let next = waiting.iter().position(free).unwrap_or_else(|| {
            let epochs: Vec<_> = waiting.iter().map(|epoch| names.text(*epoch)).collect();
            report.add(Violation::EpochOrder {
                room: room_name.to_owned(),
                epochs: epochs.join(", "),
            });
            0
        });
        ranks.insert(waiting.remove(next), ranks.len());
    }
    ranks
}

fn distinct(names: impl Iterator<Item = Name>) -> Vec<Name> {
    let mut seen = HashSet::new();
    names.filter(|name| seen.insert(*name)).collect()
}
