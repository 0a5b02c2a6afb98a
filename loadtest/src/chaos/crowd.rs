//! All members of a run, and whether they have converged.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::history::History;
use super::member::{Habits, Member, Profile, Suffer};
use super::rng::Rng;
use crate::deployment::child::wait_until;

/// Within this time after the healing a new message must reach everybody.
pub const CONVERGE_MAX: Duration = Duration::from_secs(10);
/// How much longer is waited, to say how long it really took.
pub const GIVE_UP: Duration = Duration::from_secs(60);
/// Orders to one client that wait; more would be for a client that is offline already.
const SUFFER_AHEAD: usize = 2;

/// The members; dropping it ends them.
#[derive(Debug)]
pub struct Crowd {
    /// What they share.
    pub history: Arc<History>,
    profiles: Vec<Profile>,
    suffer: Vec<mpsc::Sender<Suffer>>,
    tasks: JoinSet<()>,
}

impl Crowd {
    /// Lets all members connect, so many in each room; member *i* is `user<i>`.
    pub fn start(rooms: usize, members: usize, habits: Habits, tokens: &[String], seed: u64) -> Self {
        let count = rooms * members;
        let habits = Arc::new(habits);
        let profiles: Vec<_> = (0..count).map(|index| profile(index, rooms)).collect();
        let names = profiles.iter().map(|profile| name(profile, rooms)).collect();
        let history = Arc::new(History::new(rooms, names));
        let (mut suffer, mut tasks) = (Vec::new(), JoinSet::new());
        for (profile, token) in profiles.iter().zip(tokens) {
            let (sender, receiver) = mpsc::channel(SUFFER_AHEAD);
            suffer.push(sender);
            let rng = Rng::new(seed ^ (profile.index as u64 + 1));
            let member = Member::new(history.clone(), profile.clone(), habits.clone(), token, receiver, rng);
            tasks.spawn(member.run());
        }
        Self {
            history,
            profiles,
            suffer,
            tasks,
        }
    }

    /// Waits until everybody is in their room.
    pub async fn wait_joined(&self, limit: Duration) -> bool {
        let members = &self.history.members;
        wait_until(limit, async || {
            members.iter().all(|member| member.joined.load(Ordering::Relaxed))
        })
        .await
    }

    /// Whether this is one of its rooms.
    pub fn talks_in(&self, room: &str) -> bool {
        self.history.rooms.iter().any(|known| known.name == room)
    }

    /// The members of a room that only read.
    pub fn readers_of(&self, room: usize) -> impl Iterator<Item = usize> {
        let readers = self.profiles.iter().filter(|profile| profile.window == 0);
        readers
            .map(|profile| profile.index)
            .filter(move |index| self.history.members[*index].room == room)
    }

    /// Makes a client suffer; one that has enough is spared.
    pub fn suffer(&self, member: usize, suffering: Suffer) {
        let _ = self.suffer[member].try_send(suffering);
    }

    /// Whether a member ended, which only a fault of this program can cause.
    pub fn has_broken(&mut self) -> bool {
        self.tasks.try_join_next().is_some()
    }

    /// Posts a probe in every room and waits until it is acked and everybody has seen it; the time that took, and what
    /// took longer than it may, counted from now or from when we let go of the member.
    pub async fn converge(&self) -> (Duration, Vec<String>) {
        let (began, probe) = (Instant::now(), self.history.new_probe());
        let mut late: Option<Vec<String>> = None;
        let mut judged_at = CONVERGE_MAX;
        wait_until(GIVE_UP, async || {
            let missing = self.missing(probe);
            if missing.is_empty() {
                return true;
            }
            let overdue = missing.iter().filter(|(since, _)| *since > CONVERGE_MAX);
            if began.elapsed() > judged_at && late.is_none() {
                let names: Vec<_> = overdue.map(|(_, what)| what.clone()).collect();
                if names.is_empty() {
                    judged_at += Duration::from_millis(100);
                } else {
                    late = Some(names);
                }
            }
            false
        })
        .await;
        (began.elapsed(), late.unwrap_or_default())
    }

    /// Who lacks a probe, and for how long they were left alone.
    fn missing(&self, probe: u64) -> Vec<(Duration, String)> {
        let rooms = self
            .history
            .rooms
            .iter()
            .filter(|room| room.acked_probe.load(Ordering::Relaxed) < probe);
        let rooms = rooms.map(|room| (Duration::MAX, format!("{}: no ack", room.name)));
        let members = self.history.members.iter().enumerate().filter_map(|(index, member)| {
            if member.seen_probe.load(Ordering::Relaxed) >= probe {
                return None;
            }
            let room = &self.history.rooms[member.room].name;
            let state = if member.joined.load(Ordering::Relaxed) {
                "joined"
            } else {
                "not joined"
            };
            // While we keep it from reading nothing is expected of it.
            Some((
                self.history.free_for(index)?,
                format!("{room}: {} saw nothing ({state})", member.name),
            ))
        });
        rooms.chain(members).collect()
    }

    /// Lets the writers finish; false when some answer stays away.
    pub async fn close(&self, limit: Duration) -> bool {
        self.history.closing.store(true, Ordering::Relaxed);
        let writers: Vec<_> = self.profiles.iter().filter(|profile| profile.window > 0).collect();
        let idle = |profile: &&Profile| self.history.members[profile.index].idle.load(Ordering::Relaxed);
        wait_until(limit, async || writers.iter().all(idle)).await
    }

    /// Waits until every member has seen the last place of its room.
    pub async fn wait_seen(&self, tops: &[(String, u64)], limit: Duration) -> Vec<String> {
        let behind = || -> Vec<String> {
            let behind = self.history.members.iter().filter_map(|member| {
                let room = &self.history.rooms[member.room].name;
                let top = tops.iter().find(|(name, _)| name == room)?.1;
                let seen = member.top_seq.load(Ordering::Relaxed);
                (seen < top).then(|| format!("{room}: {} is at {seen} of {top}", member.name))
            });
            behind.collect()
        };
        wait_until(limit, async || behind().is_empty()).await;
        behind()
    }
}

/// Two writers a room, one of which has several messages under way; of the readers every second speaks protocol 2.
fn profile(index: usize, rooms: usize) -> Profile {
    let place = index / rooms;
    let window = match place {
        0 => 1,
        1 => 4,
        _ => 0,
    };
    Profile {
        index,
        proto2: window > 0 || place.is_multiple_of(2),
        window,
    }
}

fn name(profile: &Profile, rooms: usize) -> String {
    let role = match (profile.window, profile.proto2) {
        (0, true) => "reader",
        (0, false) => "legacy",
        _ => "writer",
    };
    format!("{role}-{}.{}", profile.index % rooms, profile.index / rooms)
}
