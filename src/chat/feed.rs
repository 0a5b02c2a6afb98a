//! The delivery of one room on this node, as a state machine without IO.
//!
//! A feed knows up to where it has handed events to its members. An event that comes next is delivered; one that comes
//! later shows a hole, and everything from there on is taken from the log until the feed has caught up with what it has
//! seen. A member is the same thing in small: one that joins, or that lags, is brought up from the log and goes live when
//! it stands where the feed stands. So nothing is ever buffered, and there is one way to be late.

use std::collections::HashMap;
use std::hash::Hash;

use crate::model::{Epoch, Position, RoomEvent, Seq, UnixMs};
use crate::redis::LogPage;

/// What to do with a live event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It is the next: hand it to the live members.
    Deliver,
    /// It was delivered before, or the log will bring it: nothing to do.
    Skip,
    /// Something before it is missing: start to fill from the log.
    Fill,
}

/// A member's state.
#[derive(Debug)]
pub struct Member<M> {
    /// How to reach it.
    pub handle: M,
    /// Up to where it has the room's events.
    pub at: Position,
    /// The epoch in which that place stands.
    epoch: Epoch,
    /// Whether it gets live events; else it is being brought up from the log.
    pub live: bool,
    /// Tells this membership from an earlier one of the same socket.
    generation: u64,
}

impl<M> Member<M> {
    /// Tells this membership from an earlier one of the same socket.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// What a page of the log means for a feed that fills.
#[derive(Debug, PartialEq, Eq)]
pub enum Fill {
    /// The page continues the feed.
    Continues,
    /// It does, but some members stood ahead of the feed, on events that were lost with a failed server.
    Strays,
    /// Events after this number were lost with a failed server: who has seen them must be told.
    LostTail(Seq),
    /// The log no longer holds what comes next: members have a hole that cannot be filled.
    BelowFloor,
}

/// The room's delivery state on this node.
#[derive(Debug)]
pub struct Feed<K, M> {
    epoch: Epoch,
    /// The newest event handed to live members; `None` before the first read of the log.
    top: Option<Position>,
    /// The newest number seen on the bus, which filling must reach.
    seen: Seq,
    filling: bool,
    /// Whether a gap was suspected while filling: the page read by then may not show it.
    recheck: bool,
    generations: u64,
    members: HashMap<K, Member<M>>,
}

impl<K: Hash + Eq + Clone, M> Default for Feed<K, M> {
    fn default() -> Self {
        Self {
            epoch: Epoch::default(),
            top: None,
            seen: 0,
            filling: false,
            recheck: false,
            generations: 0,
            members: HashMap::new(),
        }
    }
}

impl<K: Hash + Eq + Clone, M> Feed<K, M> {
    /// Takes a live event from the bus.
    pub fn offer(&mut self, event: &RoomEvent) -> Offer {
        let Some(top) = self.top else {
            // Nobody has joined yet; the first join reads the log.
            return Offer::Skip;
        };
        if event.epoch != self.epoch {
            // Another server writes now: only the log tells how its numbers relate to ours.
            self.seen = event.position.seq;
            return self.start_fill();
        }
        self.seen = self.seen.max(event.position.seq);
        if self.filling || event.position.seq <= top.seq {
            return Offer::Skip;
        }
        if event.position.seq == top.seq + 1 {
            self.top = Some(event.position);
            return Offer::Deliver;
        }
        self.start_fill()
    }

    /// Events may be missing at the end: fill once, whatever was seen.
    pub fn suspect_gap(&mut self) -> Offer {
        if self.top.is_none() {
            return Offer::Skip;
        }
        self.recheck = self.filling;
        self.start_fill()
    }

    fn start_fill(&mut self) -> Offer {
        if self.filling {
            return Offer::Skip;
        }
        self.filling = true;
        Offer::Fill
    }

    /// Where filling goes on from.
    pub fn top(&self) -> Position {
        self.top.unwrap_or_default()
    }

    /// Compares a page, read after [`Self::top`], with the feed, before its events are delivered.
    pub fn check_page(&mut self, page: &LogPage) -> Fill {
        let top = self.top();
        if page.epoch != self.epoch {
            let first = first_after(&page.epochs, &self.epoch);
            let old = std::mem::replace(&mut self.epoch, page.epoch.clone());
            let mut strays = false;
            for member in self.members.values_mut().filter(|member| member.epoch != page.epoch) {
                // Who stands below the new epoch's first event has nothing that was lost.
                if member.epoch == old && first.is_some_and(|first| member.at.seq < first) {
                    member.epoch.clone_from(&page.epoch);
                } else {
                    strays = true;
                }
            }
            // Numbers of the old epoch at or above the new one's first are gone with the old server.
            match first {
                Some(first) if top.seq < first => {
                    if strays {
                        return Fill::Strays;
                    }
                }
                _ => {
                    // Of an epoch that is not listed nothing can be proven: what the present one has is all that goes on.
                    let newest = || page.epochs.last().map_or(page.top.seq + 1, |(_, first)| *first);
                    let kept = first.unwrap_or_else(newest).saturating_sub(1).max(page.floor.seq);
                    self.top = Some(Position { ts: 0, seq: kept });
                    self.seen = page.top.seq;
                    return Fill::LostTail(kept);
                }
            }
        }
        if top.seq < page.floor.seq {
            self.top = Some(page.floor);
            return Fill::BelowFloor;
        }
        Fill::Continues
    }

    /// Takes the next event of a filling page; `true` when it is to be delivered.
    pub fn advance(&mut self, event: &RoomEvent) -> bool {
        if event.position.seq != self.top().seq + 1 {
            return false;
        }
        self.top = Some(event.position);
        true
    }

    /// Gives up on a hole that the log does not fill: goes on from where the log ends.
    pub fn abandon_hole(&mut self, page: &LogPage) {
        self.top = Some(page.top);
        self.seen = page.top.seq;
    }

    /// After a page: whether filling is done. `more` says that the log has further events.
    pub fn finish_fill(&mut self, more: bool) -> bool {
        if std::mem::take(&mut self.recheck) || more || self.top().seq < self.seen {
            return false;
        }
        self.filling = false;
        true
    }

    /// Adds a member that has everything up to `at`; it is not live before [`Self::go_live`].
    /// Returns what tells this membership from an earlier one.
    pub fn add_member(&mut self, key: K, handle: M, at: Position, page: &LogPage) -> u64 {
        if self.top.is_none() {
            self.top = Some(page.top);
            self.epoch = page.epoch.clone();
        }
        self.generations += 1;
        let member = Member {
            handle,
            at,
            epoch: page.epoch.clone(),
            live: false,
            generation: self.generations,
        };
        self.members.insert(key, member);
        self.generations
    }

    /// Makes a member live when it stands where the feed stands; `false` when it has to read on.
    pub fn go_live(&mut self, key: &K, generation: u64, at: Position) -> bool {
        let top = self.top();
        let Some(member) = self
            .members
            .get_mut(key)
            .filter(|member| member.generation == generation)
        else {
            return true;
        };
        member.at = at;
        // Another epoch's place cannot be compared: the feed, or the member, has yet to learn of it.
        member.live = member.epoch == self.epoch && at.seq >= top.seq;
        member.live
    }

    /// Members that get the event which [`Self::top`] has just reached.
    pub fn live_members(&mut self) -> impl Iterator<Item = (&K, &mut Member<M>)> {
        let top = self.top.unwrap_or_default();
        self.members
            .iter_mut()
            .filter(move |(_, member)| member.live && member.at.seq < top.seq)
    }

    /// A live member could not take what it was handed: it stands at `at` and is not live any more. `false` when this
    /// membership is over.
    pub fn fall_behind(&mut self, key: &K, generation: u64, at: Position) -> bool {
        let member = self.members.get_mut(key);
        let Some(member) = member.filter(|member| member.generation == generation) else {
            return false;
        };
        member.at = at;
        member.live = false;
        true
    }

    /// Members that do not stand where a page has put the feed: they are put there and must be told of the break.
    pub fn displaced_members(&mut self) -> impl Iterator<Item = (&K, &mut Member<M>)> {
        let epoch = self.epoch.clone();
        self.put_at_top(move |member, top| member.at.seq != top.seq || member.epoch != epoch)
    }

    /// Members on events that were lost: they are put where the feed stands and must be told.
    pub fn stray_members(&mut self) -> impl Iterator<Item = (&K, &mut Member<M>)> {
        let epoch = self.epoch.clone();
        self.put_at_top(move |member, _| member.epoch != epoch)
    }

    fn put_at_top(
        &mut self,
        is_displaced: impl Fn(&Member<M>, Position) -> bool,
    ) -> impl Iterator<Item = (&K, &mut Member<M>)> {
        let (top, epoch) = (self.top(), &self.epoch);
        self.members
            .iter_mut()
            .filter(move |(_, member)| is_displaced(member, top))
            .map(move |(key, member)| {
                member.at = top;
                member.epoch.clone_from(epoch);
                (key, member)
            })
    }

    /// Every member.
    pub fn members(&self) -> impl Iterator<Item = (&K, &Member<M>)> {
        self.members.iter()
    }

    /// Removes a member.
    pub fn remove_member(&mut self, key: &K) -> Option<Member<M>> {
        self.members.remove(key)
    }

    /// Whether this membership still stands.
    pub fn has_member(&self, key: &K, generation: u64) -> bool {
        self.members
            .get(key)
            .is_some_and(|member| member.generation == generation)
    }

    /// Whether the log has an event of this time that was not handed out, and nobody is fetching it.
    pub fn is_behind(&self, ts: UnixMs) -> bool {
        !self.filling && self.top.is_some_and(|top| top.ts < ts)
    }

    /// Whether this is a member.
    pub fn contains(&self, key: &K) -> bool {
        self.members.contains_key(key)
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

/// The first number of the epoch that followed `epoch`; `None` when `epoch` is not in the list.
pub fn first_after(epochs: &[(Epoch, Seq)], epoch: &Epoch) -> Option<Seq> {
    let at = epochs.iter().position(|(known, _)| known == epoch)?;
    epochs.get(at + 1).map(|(_, first)| *first)
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::model::EventKind;

    fn event(epoch: &str, seq: Seq) -> RoomEvent {
        RoomEvent {
            position: Position { ts: seq * 10, seq },
            epoch: Epoch::from(epoch),
            kind: EventKind::Message,
            json: RawValue::from_string("{}".into()).unwrap(),
        }
    }

    fn page(epochs: &[(&str, Seq)], floor: Seq, events: Vec<RoomEvent>, top: Seq) -> LogPage {
        LogPage {
            epoch: Epoch::from(epochs.last().unwrap().0),
            epochs: epochs
                .iter()
                .map(|(epoch, first)| (Epoch::from(*epoch), *first))
                .collect(),
            top: Position { ts: top * 10, seq: top },
            floor: Position {
                ts: floor * 10,
                seq: floor,
            },
            deleted: false,
            more: false,
            events,
        }
    }

    fn feed_at(top: Seq) -> Feed<u8, ()> {
        let mut feed = Feed::default();
        let start = page(&[("a", 1)], 0, vec![], top);
        let generation = feed.add_member(1, (), start.top, &start);
        assert!(feed.go_live(&1, generation, start.top));
        feed
    }

    #[test]
    fn the_next_event_is_delivered_and_a_repeated_one_is_not() {
        let mut feed = feed_at(4);
        assert_eq!(feed.offer(&event("a", 5)), Offer::Deliver);
        assert_eq!(feed.live_members().count(), 1);
        assert_eq!(feed.offer(&event("a", 5)), Offer::Skip);
        assert_eq!(feed.offer(&event("a", 3)), Offer::Skip);
    }

    #[test]
    fn a_hole_is_filled_from_the_log_up_to_what_was_seen() {
        let mut feed = feed_at(4);
        assert_eq!(feed.offer(&event("a", 7)), Offer::Fill);
        assert_eq!(feed.offer(&event("a", 8)), Offer::Skip);
        let first = page(&[("a", 1)], 0, vec![event("a", 5), event("a", 6), event("a", 7)], 8);
        assert_eq!(feed.check_page(&first), Fill::Continues);
        assert!(first.events.iter().all(|event| feed.advance(event)));
        assert!(!feed.finish_fill(false), "8 was seen and is still missing");
        assert!(feed.advance(&event("a", 8)));
        assert!(feed.finish_fill(false));
        assert_eq!(feed.offer(&event("a", 9)), Offer::Deliver);
    }

    #[test]
    fn a_member_goes_live_only_where_the_feed_stands() {
        let mut feed = feed_at(4);
        let start = page(&[("a", 1)], 0, vec![], 4);
        let second = feed.add_member(2, (), start.top, &start);
        assert_eq!(feed.offer(&event("a", 5)), Offer::Deliver);
        assert_eq!(feed.live_members().map(|(key, _)| *key).collect::<Vec<_>>(), [1]);
        assert!(!feed.go_live(&2, second, start.top));
        assert!(feed.go_live(&2, second, Position { ts: 50, seq: 5 }));
        // A member that stands ahead of the feed, because its page came before the bus, gets nothing twice.
        let ahead = page(&[("a", 1)], 0, vec![], 6);
        let third = feed.add_member(3, (), ahead.top, &ahead);
        assert!(feed.go_live(&3, third, ahead.top));
        assert_eq!(feed.offer(&event("a", 6)), Offer::Deliver);
        let mut keys: Vec<u8> = feed.live_members().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        assert_eq!(keys, [1, 2]);
    }

    #[test]
    fn a_gap_suspected_while_filling_is_looked_at_again() {
        let mut feed = feed_at(4);
        assert_eq!(feed.suspect_gap(), Offer::Fill);
        assert_eq!(feed.suspect_gap(), Offer::Skip);
        assert!(!feed.finish_fill(false));
        assert!(feed.finish_fill(false));
    }

    #[test]
    fn a_member_of_before_is_not_revived() {
        let mut feed = feed_at(4);
        let start = page(&[("a", 1)], 0, vec![], 4);
        let old = feed.add_member(2, (), start.top, &start);
        let new = feed.add_member(2, (), start.top, &start);
        assert!(!feed.has_member(&2, old) && feed.has_member(&2, new));
        assert!(
            feed.go_live(&2, old, start.top),
            "whoever brings the old one up has nothing more to do"
        );
        assert_eq!(feed.offer(&event("a", 5)), Offer::Deliver);
        assert_eq!(feed.live_members().count(), 1);
    }

    #[test]
    fn a_lost_tail_is_told_from_a_clean_restart() {
        let mut feed = feed_at(4);
        assert_eq!(feed.offer(&event("b", 5)), Offer::Fill);
        assert_eq!(
            feed.check_page(&page(&[("a", 1), ("b", 5)], 0, vec![event("b", 5)], 5)),
            Fill::Continues
        );

        let mut feed = feed_at(4);
        assert_eq!(feed.offer(&event("b", 3)), Offer::Fill);
        assert_eq!(
            feed.check_page(&page(&[("a", 1), ("b", 3)], 0, vec![], 3)),
            Fill::LostTail(2)
        );
        assert_eq!(feed.top().seq, 2);

        let mut feed = feed_at(4);
        feed.suspect_gap();
        assert_eq!(feed.check_page(&page(&[("c", 1)], 0, vec![], 0)), Fill::LostTail(0));
    }

    #[test]
    fn a_member_on_lost_events_is_told_although_the_feed_itself_goes_on() {
        let mut feed = feed_at(7);
        // Its page was read before the failover that took 9 and 10 along.
        let before = page(&[("a", 1)], 0, vec![], 10);
        let stray = feed.add_member(2, (), before.top, &before);
        feed.suspect_gap();
        let after = page(&[("a", 1), ("b", 9)], 0, vec![event("a", 8), event("b", 9)], 9);
        assert_eq!(feed.check_page(&after), Fill::Strays);
        assert_eq!(feed.stray_members().map(|(key, _)| *key).collect::<Vec<_>>(), [2]);
        assert_eq!(feed.stray_members().count(), 0, "it is told once");
        assert!(feed.go_live(&2, stray, Position { ts: 70, seq: 7 }));
        // One that comes only now with a page of the old epoch does not go live.
        let late = feed.add_member(3, (), before.top, &before);
        assert!(!feed.go_live(&3, late, before.top));
    }

    #[test]
    fn a_hole_below_the_floor_is_reported() {
        let mut feed = feed_at(4);
        feed.suspect_gap();
        assert_eq!(
            feed.check_page(&page(&[("a", 1)], 9, vec![event("a", 10)], 10)),
            Fill::BelowFloor
        );
        assert!(feed.advance(&event("a", 10)));
    }
}
