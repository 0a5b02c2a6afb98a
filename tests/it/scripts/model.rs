//! The rooms as the contract has them, in plain Rust: what every script must answer.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use roomcast::model::{EventKind, Position};
use roomcast::redis::{After, Authority, Draft, LogKeep, LogPage, PageLimit, PostLimits, Posted, Receipt, Take};

use super::archive::{Archive, Waiting, archive_size};

/// A log is cut in steps of this many events.
const TRIM_SLACK: usize = 256;
/// Events that one trim removes at most.
pub const TRIM_MAX: u64 = 2000;
const EPOCHS_MAX: usize = 16;

/// The bounds of the server's clock during a call, Unix ms.
pub type Clock = (u64, u64);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tombstone {
    #[default]
    None,
    Fresh,
    Aged,
}

#[derive(Debug, Clone)]
pub struct Stored {
    pub position: Position,
    pub kind: EventKind,
    pub user: String,
    pub epoch: String,
    pub json: String,
    /// What subscribers of the room got.
    pub live: String,
}

/// One room.
#[derive(Debug, Clone, Default)]
pub struct Room {
    boot: String,
    pub epoch: String,
    pub epochs: Vec<(String, u64)>,
    pub top: Position,
    floor: Position,
    pub tombstone: Tombstone,
    pub log: Vec<Stored>,
    gone: HashSet<String>,
    known: HashMap<(String, String), (u64, Receipt)>,
}

impl Room {
    /// Whether a script will open a new epoch on the server of this replication id.
    pub fn is_stale(&self, boot: &str) -> bool {
        self.boot != boot
    }

    /// Opens an epoch, whose name the script chose.
    pub fn open(&mut self, boot: &str, epoch: &str) {
        self.boot = boot.to_owned();
        self.epoch = epoch.to_owned();
        self.epochs.push((epoch.to_owned(), self.top.seq + 1));
        let old = self.epochs.len().saturating_sub(EPOCHS_MAX);
        self.epochs.drain(..old);
    }

    pub fn floor(&self) -> Position {
        if self.log.is_empty() { self.top } else { self.floor }
    }

    fn authorise(&self, floor: Position, target: &str, user: &str, authority: Authority) -> Option<Posted> {
        if self.gone.contains(target) {
            return Some(Posted::NotFound);
        }
        let below = (authority != Authority::Checked).then_some(Posted::Elsewhere);
        let Some(position) = target.parse::<Position>().ok().filter(|at| at.to_string() == target) else {
            return below;
        };
        if position.seq <= floor.seq {
            return below;
        }
        match self.log.iter().find(|event| event.position == position) {
            None => Some(Posted::NotFound),
            Some(event) if !matches!(event.kind, EventKind::Message | EventKind::Gpt) => Some(Posted::NotFound),
            Some(event) if event.user != user && authority != Authority::Owner => Some(Posted::NotAuthor),
            Some(_) => None,
        }
    }

    /// Judges the answers to a post and stores what they store; `archived` is the partition's waiting events.
    pub fn post(
        &mut self,
        drafts: &[Draft],
        limits: PostLimits,
        clock: Clock,
        archived: &mut Vec<Waiting>,
        answers: &[Posted],
    ) -> Result<Vec<Stored>, TestCaseError> {
        prop_assert_eq!(drafts.len(), answers.len());
        let floor = self.floor();
        let mut stored: Vec<Stored> = Vec::new();
        for (number, (draft, answer)) in drafts.iter().zip(answers).enumerate() {
            let cid = draft.cid.clone().map(|cid| (draft.user.as_str().to_owned(), cid));
            let refused = if let Some((hash, receipt)) = cid.as_ref().and_then(|cid| self.known.get(cid)) {
                Some(if *hash == draft.hash {
                    Posted::Stored(Receipt {
                        dup: true,
                        ..receipt.clone()
                    })
                } else {
                    Posted::Conflict
                })
            } else if self.tombstone != Tombstone::None {
                Some(Posted::RoomGone)
            } else if archive_size(archived) >= limits.archive_max_bytes {
                Some(Posted::Backlog)
            } else {
                let target = draft.target.as_deref();
                target.and_then(|target| self.authorise(floor, target, draft.user.as_str(), draft.authority))
            };
            if let Some(refused) = refused {
                prop_assert_eq!(answer, &refused, "draft {}", number);
                continue;
            }
            let Posted::Stored(receipt) = answer else {
                return Err(TestCaseError::fail(format!(
                    "draft {number}: {answer:?}, must be stored"
                )));
            };
            // the clock is read once per post, so only its first event may be ahead of the one before
            let next = self.top.ts + 1;
            let (from, to) = if stored.is_empty() { clock } else { (0, 0) };
            prop_assert!(
                (from.max(next)..=to.max(next)).contains(&receipt.ts),
                "draft {}: ts {} after {}, clock {:?}",
                number,
                receipt.ts,
                self.top.ts,
                clock
            );
            let event = self.place(draft, receipt.ts);
            let id = draft.target.clone().unwrap_or_else(|| event.position.to_string());
            let expected = Receipt {
                id,
                seq: event.position.seq,
                epoch: self.epoch.as_str().into(),
                ts: receipt.ts,
                dup: false,
            };
            prop_assert_eq!(receipt, &expected, "draft {}", number);
            if let (EventKind::Delete, Some(target)) = (draft.kind, &draft.target) {
                self.gone.insert(target.clone());
            }
            if let Some(cid) = cid {
                self.known.insert(cid, (draft.hash, expected));
            }
            archived.push(Waiting {
                json: event.json.clone(),
                stored: clock,
            });
            self.log.push(event.clone());
            stored.push(event);
        }
        if !stored.is_empty() {
            // the log had ended: what it held stays below the floor
            self.floor = floor;
            let cap = limits.log_max_len as usize;
            if self.log.len() > cap + TRIM_SLACK {
                let cut = self.log.len() - cap;
                self.floor = self.log[cut - 1].position;
                self.log.drain(..cut);
            }
        }
        Ok(stored)
    }

    fn place(&mut self, draft: &Draft, ts: u64) -> Stored {
        self.top = Position {
            ts,
            seq: self.top.seq + 1,
        };
        let (position, epoch, seq) = (self.top, self.epoch.clone(), self.top.seq);
        let id = draft.target.clone().unwrap_or_else(|| position.to_string());
        let rev = draft
            .target
            .as_ref()
            .map_or(String::new(), |_| format!(r#","rev":{seq}"#));
        let json = format!(
            r#"{},"id":"{id}","timestamp":{ts},"ts":{ts},"seq":{seq},"epoch":"{epoch}"{rev}}}"#,
            draft.prefix
        );
        let trace = if draft.trace.is_empty() { "-" } else { &draft.trace };
        let live = format!("{position} {epoch} {} {trace} {json}", draft.kind.as_str());
        Stored {
            position,
            kind: draft.kind,
            user: draft.user.as_str().to_owned(),
            epoch,
            json,
            live,
        }
    }

    /// Puts an event where nothing newer is.
    pub fn plant(&mut self, draft: &Draft, ts: u64) -> Stored {
        let event = self.place(draft, ts);
        self.log.push(event.clone());
        event
    }

    /// Judges how many events a trim removed, and removes them.
    pub fn trim(&mut self, archived: u64, keep: LogKeep, clock: Clock, removed: u64) -> Result<(), TestCaseError> {
        let kept = self.top.seq.saturating_sub(u64::from(keep.events));
        let upto = archived.min(kept).min(self.floor().seq + TRIM_MAX);
        let age = u64::try_from(keep.age.as_millis()).unwrap();
        // an event becomes old enough by the server's clock
        let at = |now: u64| {
            let old = |event: &&Stored| event.position.seq <= upto && event.position.ts + age <= now;
            self.log.iter().take_while(old).count()
        };
        let (least, most) = (at(clock.0), at(clock.1));
        let removed = usize::try_from(removed).unwrap();
        prop_assert!(
            (least..=most).contains(&removed),
            "removed {}, must be {}",
            removed,
            least
        );
        if let Some(last) = self.log.drain(..removed).next_back() {
            self.floor = last.position;
        }
        Ok(())
    }

    /// What a page without limits would hold, in the order in which it fills.
    pub fn above(&self, after: After, take: Take) -> Vec<&Stored> {
        let mut above: Vec<&Stored> = self
            .log
            .iter()
            .filter(|event| is_above(event.position, after))
            .collect();
        if take == Take::Newest {
            above.reverse();
        }
        above
    }

    /// Judges a page.
    pub fn read(
        &mut self,
        after: After,
        take: Take,
        limit: PageLimit,
        exists: bool,
        page: &LogPage,
    ) -> Result<(), TestCaseError> {
        if exists && self.tombstone == Tombstone::Aged {
            self.tombstone = Tombstone::None;
        }
        let mut above = self.above(after, take);
        let mut bytes = 0;
        let fits = above
            .iter()
            .take(limit.events)
            .enumerate()
            .take_while(|(number, event)| {
                bytes += event.json.len();
                *number == 0 || bytes <= limit.bytes
            });
        let count = fits.count();
        let more = count < above.len();
        above.truncate(count);
        if take == Take::Newest {
            above.reverse();
        }
        let expected: Vec<_> = above
            .iter()
            .map(|event| (event.position, event.kind, event.epoch.as_str(), event.json.as_str()))
            .collect();
        let found: Vec<_> = page
            .events
            .iter()
            .map(|event| (event.position, event.kind, event.epoch.as_str(), event.json.get()))
            .collect();
        prop_assert_eq!(found, expected, "events");
        let epochs: Vec<_> = page
            .epochs
            .iter()
            .map(|(epoch, first)| (epoch.as_str().to_owned(), *first))
            .collect();
        prop_assert_eq!(&epochs, &self.epochs, "epochs");
        prop_assert_eq!(page.epoch.as_str(), &self.epoch, "epoch");
        prop_assert_eq!((page.top, page.floor), (self.top, self.floor()), "top and floor");
        prop_assert_eq!(
            (page.deleted, page.more),
            (self.tombstone != Tombstone::None, more),
            "deleted and more"
        );
        Ok(())
    }

    pub fn delete(&mut self) {
        self.tombstone = Tombstone::Fresh;
        self.floor = self.top;
        self.log.clear();
        self.gone.clear();
    }
}

fn is_above(position: Position, after: After) -> bool {
    match after {
        After::Start => true,
        After::Position(bound) => position > bound,
        After::Time(ts) => position.ts > ts,
        After::Seq(seq) => position.seq > seq,
    }
}

/// All rooms, and the archive of each partition.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub rooms: Vec<Room>,
    pub archives: Vec<Archive>,
}
