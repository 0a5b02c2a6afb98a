//! The queue of questions in plain Rust: who may answer what, and what ended how.

pub mod letters;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use roomcast::redis::{Ender, Enqueued, Hold, Question};

use super::queue_found::Found;
use super::wire::Answer;

/// More than one user's share, so that it is used up.
pub const ROOMS: usize = 24;
const ROOM_MAX: usize = 4;
const USER_MAX: usize = 21;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Reply,
    Error,
}

#[derive(Debug)]
pub struct Asked {
    pub question: Question,
    pub room: usize,
    user: usize,
    partition: usize,
    pub ended: Option<End>,
    /// The generation from which each of its lives counts.
    pub lives: Vec<u64>,
    /// How often it ended: once in each life.
    ends: u32,
    told: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Waiting,
    Ready,
    Running,
    Delayed,
}

/// A question that is open.
#[derive(Debug)]
pub struct Job {
    state: State,
    generation: u64,
    /// The generation before its first claim.
    base: u64,
    stalls: u32,
    worker: Option<usize>,
    /// By which entry it can be claimed.
    ticket: u64,
    cancelled: bool,
}

#[derive(Debug)]
struct Pending {
    entry: String,
    ticket: u64,
    number: usize,
    worker: usize,
}

/// Generation, attempt and stalls of a claim, and whether it was cancelled before.
pub type Claimed = (u64, u64, u32, bool);

/// A reply that is being written: claim, newest piece, text.
type Written = (u64, Option<u64>, String);

/// Questions are numbers: the order in which they were asked.
#[derive(Debug)]
pub struct Model {
    pub asked: Vec<Asked>,
    /// Questions and the generation from which each counts.
    pub outboxes: Vec<VecDeque<(usize, u64)>>,
    pub jobs: BTreeMap<usize, Job>,
    rooms: Vec<VecDeque<usize>>,
    users: Vec<VecDeque<usize>>,
    /// What is in the stream and was never read.
    unread: VecDeque<(u64, usize)>,
    /// How many entries there ever were.
    tickets: u64,
    /// What was read and not acknowledged, in the stream's order.
    pending: Vec<Pending>,
    written: HashMap<usize, Written>,
    /// In the order in which they were given up.
    pub letters: Vec<letters::Letter>,
    letters_ever: u64,
    /// For which letter each question was last asked anew.
    again: HashMap<usize, u64>,
    /// The last claim of those of each question's lives that were given up.
    buried: HashMap<usize, u64>,
    pub paused: bool,
}

impl Model {
    pub fn new(users: usize) -> Self {
        Self {
            asked: Vec::new(),
            outboxes: vec![VecDeque::new(); usize::from(super::server::PARTITIONS)],
            jobs: BTreeMap::new(),
            rooms: vec![VecDeque::new(); ROOMS],
            users: vec![VecDeque::new(); users],
            unread: VecDeque::new(),
            tickets: 0,
            pending: Vec::new(),
            written: HashMap::new(),
            letters: Vec::new(),
            letters_ever: 0,
            again: HashMap::new(),
            buried: HashMap::new(),
            paused: false,
        }
    }

    pub fn ask(&mut self, question: Question, room: usize, user: usize, partition: usize) {
        self.outboxes[partition].push_back((self.asked.len(), 0));
        self.asked.push(Asked {
            question,
            room,
            user,
            partition,
            ended: None,
            lives: vec![0],
            ends: 0,
            told: 0,
        });
    }

    pub fn enqueue(&mut self, number: usize, generation: u64) -> Enqueued {
        let (room, user) = (self.asked[number].room, self.asked[number].user);
        let before = self.rooms[room].len();
        let is_over = self.buried.get(&number).is_some_and(|last| generation < *last);
        if is_over || self.jobs.contains_key(&number) {
            return Enqueued::Known;
        } else if generation == 0 && before >= ROOM_MAX {
            return Enqueued::RoomBusy;
        } else if generation == 0 && before == 0 && self.users[user].len() >= USER_MAX {
            return Enqueued::UserBusy;
        }
        let job = Job {
            state: State::Waiting,
            generation,
            base: generation,
            stalls: 0,
            worker: None,
            ticket: 0,
            cancelled: false,
        };
        self.jobs.insert(number, job);
        self.rooms[room].push_back(number);
        if before == 0 {
            self.offer(number);
        }
        Enqueued::Queued(before as u64)
    }

    fn offer(&mut self, number: usize) {
        let user = self.asked[number].user;
        self.users[user].push_back(number);
        if self.users[user].len() == 1 {
            self.make_ready(number);
        }
    }

    fn make_ready(&mut self, number: usize) {
        self.tickets += 1;
        let job = self.jobs.get_mut(&number).unwrap();
        (job.state, job.ticket) = (State::Ready, self.tickets);
        self.unread.push_back((self.tickets, number));
    }

    /// How many a worker reads, and what it can claim of them; `entries` are the places of the latter.
    pub fn take(&mut self, worker: usize, count: usize, entries: &[String]) -> (usize, Vec<(usize, Claimed)>) {
        let count = if self.paused { 0 } else { count.min(self.unread.len()) };
        let (mut entries, mut claims) = (entries.iter(), Vec::new());
        for (ticket, number) in self.unread.drain(..count).collect::<Vec<_>>() {
            // What is over is acknowledged at once.
            if self.jobs.get(&number).is_some_and(|job| job.ticket == ticket) {
                let entry = entries.next().cloned().unwrap_or_default();
                self.pending.push(Pending {
                    entry: entry.clone(),
                    ticket,
                    number,
                    worker,
                });
                claims.extend(self.claim(worker, &entry, number, false).map(|claim| (number, claim)));
            }
        }
        (count, claims)
    }

    pub fn take_over(&mut self, worker: usize, count: usize) -> Vec<(String, usize)> {
        let taken = self.pending.iter_mut().take(count);
        taken
            .map(|pending| {
                pending.worker = worker;
                (pending.entry.clone(), pending.number)
            })
            .collect()
    }

    pub fn claim(&mut self, worker: usize, entry: &str, number: usize, stalled: bool) -> Option<Claimed> {
        let at = |pending: &Pending| pending.entry == entry && pending.worker == worker;
        let ticket = self.pending.iter().find(|pending| at(pending))?.ticket;
        let Some(job) = self.jobs.get_mut(&number).filter(|job| job.ticket == ticket) else {
            self.acknowledge(entry);
            return None;
        };
        job.generation += 1;
        job.stalls += u32::from(stalled);
        (job.state, job.worker) = (State::Running, Some(worker));
        Some((job.generation, job.generation - job.base, job.stalls, job.cancelled))
    }

    fn acknowledge(&mut self, entry: &str) {
        self.pending.retain(|pending| pending.entry != entry);
    }

    pub fn beat(&mut self, worker: usize, entry: &str, number: usize, generation: u64) -> Hold {
        let held = |job: &&Job| job.generation == generation && job.worker == Some(worker);
        let Some(job) = self.jobs.get(&number).filter(held) else {
            return Hold::Lost;
        };
        let hold = if job.cancelled { Hold::Cancelled } else { Hold::Kept };
        for pending in &mut self.pending {
            if pending.entry == entry {
                pending.worker = worker;
            }
        }
        hold
    }

    /// Notes that somebody cancels what they know as of the life that begins with this generation.
    pub fn cancel_running(&mut self, number: usize, first: u64) -> bool {
        let Some(job) = self.jobs.get_mut(&number) else {
            return false;
        };
        let is_known = job.state == State::Running && job.base + 1 == first;
        job.cancelled |= is_known;
        is_known
    }

    /// Who has each entry that was read.
    pub fn holders(&self) -> Vec<(String, usize)> {
        let pending = self.pending.iter();
        pending.map(|pending| (pending.entry.clone(), pending.worker)).collect()
    }

    fn superseded(&self, number: usize, generation: u64) -> bool {
        self.written.get(&number).is_some_and(|written| written.0 > generation)
    }

    pub fn next_index(&self, number: usize, generation: u64) -> u64 {
        let known = self.written.get(&number).filter(|written| written.0 == generation);
        known.and_then(|written| written.1).map_or(0, |index| index + 1)
    }

    pub fn write(&mut self, number: usize, generation: u64, index: Option<u64>, text: &str) -> bool {
        if self.asked[number].ended.is_some() || self.superseded(number, generation) {
            return false;
        }
        let written = self.written.entry(number).or_default();
        if written.0 != generation || index.is_none() {
            written.2.clear();
        }
        (written.0, written.1) = (generation, index);
        written.2.push_str(text);
        true
    }

    pub fn parts_of(&self, room: usize) -> Vec<(String, u64, Option<u64>, String)> {
        let of_room = self
            .written
            .iter()
            .filter(|(number, _)| self.asked[**number].room == room);
        let mut parts: Vec<_> = of_room
            .map(|(number, (generation, index, text))| {
                let reply = self.asked[*number].question.reply();
                (reply, *generation, *index, text.clone())
            })
            .collect();
        parts.sort();
        parts
    }

    pub fn store(&mut self, number: usize, generation: u64) -> &'static str {
        match self.asked[number].ended {
            Some(End::Reply) => "dup",
            Some(End::Error) => "conflict",
            None if self.superseded(number, generation) => "superseded",
            None => {
                self.end(number, End::Reply);
                "stored"
            }
        }
    }

    pub fn fail(&mut self, number: usize, ender: Ender) -> &'static str {
        if self.asked[number].ended.is_some() {
            return "before";
        }
        if matches!(ender, Ender::Claimer(generation) if self.superseded(number, generation)) {
            return "superseded";
        }
        self.end(number, End::Error);
        "now"
    }

    fn end(&mut self, number: usize, end: End) {
        self.asked[number].ended = Some(end);
        self.asked[number].ends += 1;
        self.written.remove(&number);
    }

    /// Whether what its ender knows of is over, and another life has begun.
    fn is_of_later_life(&self, number: usize, ender: Ender) -> bool {
        let (Ender::Claimer(known) | Ender::Finder(known)) = ender;
        self.jobs.get(&number).is_some_and(|job| job.base >= known)
    }

    /// The generation from which its newest life counts.
    pub fn base_of(&self, number: usize) -> u64 {
        self.asked[number].lives.last().copied().unwrap_or_default()
    }

    /// Whether the life of this claim has ended.
    pub fn has_seen_end(&self, number: usize, generation: u64) -> bool {
        self.asked[number].ended.is_some() || generation <= self.base_of(number)
    }

    pub fn finish(&mut self, number: usize, ender: Ender) {
        if self.is_of_later_life(number, ender) {
            return;
        }
        let Some(job) = self.jobs.remove(&number) else { return };
        self.pending.retain(|pending| pending.ticket != job.ticket);
        let (room, user) = (self.asked[number].room, self.asked[number].user);
        let first_of_user = self.users[user].front() == Some(&number);
        let first_of_room = self.rooms[room].front() == Some(&number);
        self.users[user].retain(|other| *other != number);
        self.rooms[room].retain(|other| *other != number);
        if let (true, Some(following)) = (first_of_user, self.users[user].front()) {
            self.make_ready(*following);
        }
        if let (true, Some(following)) = (first_of_room, self.rooms[room].front()) {
            self.offer(*following);
        }
    }

    pub fn put_off(&mut self, number: usize, entry: &str, generation: u64, at_once: bool) -> bool {
        let running = |job: &&mut Job| job.generation == generation && job.state == State::Running;
        let Some(job) = self.jobs.get_mut(&number).filter(running) else {
            return false;
        };
        (job.state, job.worker) = (State::Delayed, None);
        self.acknowledge(entry);
        if at_once {
            self.make_ready(number);
        }
        true
    }

    pub fn in_state(&self, state: State) -> Vec<usize> {
        let jobs = self.jobs.iter().filter(|(_, job)| job.state == state);
        jobs.map(|(number, _)| *number).collect()
    }

    pub fn wake(&mut self, delayed: &[usize]) {
        for number in delayed {
            self.make_ready(*number);
        }
    }

    pub fn is_running_at_all(&self, number: usize) -> bool {
        self.jobs.get(&number).is_some_and(|job| job.state == State::Running)
    }

    pub fn is_running(&self, number: usize, generation: u64) -> bool {
        let job = self.jobs.get(&number);
        job.is_some_and(|job| job.state == State::Running && job.generation == generation)
    }

    /// A reply or an error was told to the room.
    pub fn told(&mut self, room: &str, reply: &str) {
        let of_room = self
            .asked
            .iter_mut()
            .filter(|asked| asked.question.room.as_str() == room);
        let asked = of_room.into_iter().find(|asked| asked.question.reply() == reply);
        asked.unwrap().told += 1;
    }

    pub fn check_told(&self) -> Result<(), TestCaseError> {
        for asked in &self.asked {
            let over = asked.lives.len() - usize::from(asked.ended.is_none());
            prop_assert_eq!(asked.ends as usize, over, "ends of {:?}", asked.question);
            prop_assert_eq!(asked.told, asked.ends, "ends told of {:?}", asked.question);
        }
        Ok(())
    }

    pub fn check_all_ended(&self) -> Result<(), TestCaseError> {
        let open: Vec<_> = self.asked.iter().filter(|asked| asked.ended.is_none()).collect();
        prop_assert!(open.is_empty(), "without an end: {:?}", open);
        Ok(())
    }

    pub fn is_over(&self) -> bool {
        let outboxes = self.outboxes.iter().all(VecDeque::is_empty);
        outboxes && self.jobs.is_empty() && self.unread.is_empty() && self.pending.is_empty()
    }

    /// Holds what is in Redis against this, and against what must always hold.
    pub fn check(&self, found: &Found) -> Result<(), TestCaseError> {
        let job = |number: &usize| self.asked[*number].question.job();
        let lists = |kind: &str, lists: &[VecDeque<usize>], name: &dyn Fn(&Asked) -> String| {
            let lists = lists.iter().filter(|list| !list.is_empty());
            let named = lists.map(|list| {
                let key = format!("rc:{{gpt}}:{kind}:{}", name(&self.asked[list[0]]));
                (key, list.iter().map(job).collect::<Vec<_>>())
            });
            named.collect::<BTreeMap<_, _>>()
        };
        let rooms = lists("room", &self.rooms, &|asked| asked.question.room.to_string());
        let users = lists("user", &self.users, &|asked| asked.question.user.to_string());
        prop_assert_eq!(&found.lists, &rooms.into_iter().chain(users).collect());
        let jobs: BTreeMap<String, (String, String)> = self
            .jobs
            .iter()
            .map(|(number, job_of)| {
                let state = format!("{:?}", job_of.state).to_lowercase();
                (job(number), (job_of.generation.to_string(), state))
            })
            .collect();
        prop_assert_eq!(&found.jobs, &jobs);
        let open: BTreeSet<String> = jobs.keys().cloned().collect();
        prop_assert_eq!(&found.open, &open);
        let delayed: BTreeSet<String> = self.in_state(State::Delayed).iter().map(job).collect();
        prop_assert_eq!(&found.delayed, &delayed);
        // What autoscaling reads is what could be done, and never unknown.
        prop_assert_eq!(&found.lag, &Answer::Number(self.unread.len() as i64), "lag");
        prop_assert_eq!(&found.pending, &Answer::Number(self.pending.len() as i64), "pending");
        let mut runnable: HashMap<(bool, usize), usize> = HashMap::new();
        for (number, job_of) in &self.jobs {
            if job_of.state == State::Waiting {
                continue;
            }
            let asked = &self.asked[*number];
            *runnable.entry((false, asked.room)).or_default() += 1;
            *runnable.entry((true, asked.user)).or_default() += 1;
            let there = job_of.state == State::Delayed
                || self.unread.iter().any(|(ticket, _)| *ticket == job_of.ticket)
                || self.pending.iter().any(|pending| pending.ticket == job_of.ticket);
            prop_assert!(there, "{:?} waits for ever", asked.question);
        }
        prop_assert!(runnable.values().all(|count| *count == 1), "{:?}", runnable);
        Ok(())
    }
}
