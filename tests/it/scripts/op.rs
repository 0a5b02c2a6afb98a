//! What may happen to the rooms, and how likely it is.

use std::fmt;

use proptest::prelude::*;
use proptest::sample::Index;

use super::server::PARTITIONS;

/// Rooms, by index; the names hold what quoting, patterns and key names could stumble over.
pub const ROOMS: [&str; 3] = ["r", "방 1:log", "x%d\"\\-.*[^$"];
pub const USERS: [&str; 3] = ["p0", "사용자 1", "u|2%s"];
pub const WORKERS: [&str; 2] = ["w0", "w1"];
const TEXTS: [&str; 4] = [
    "hi",
    "%d %1 \\u0000 \\\"}{",
    "안녕 🎉",
    "a much longer text, so that byte limits cut somewhere",
];

#[derive(Debug, Clone)]
pub enum Op {
    Post {
        room: usize,
        drafts: Vec<Words>,
        log_cap: u32,
        archive_left: Option<u32>,
    },
    /// So many messages that the log is trimmed.
    Burst {
        room: usize,
        count: usize,
        log_cap: u32,
    },
    Read {
        room: usize,
        after: Bound,
        newest: bool,
        events: usize,
        bytes: Bytes,
        exists: bool,
    },
    Delete {
        room: usize,
    },
    /// The tombstone becomes old enough for the room service's word to count.
    AgeTombstone {
        room: usize,
    },
    /// The log's life ends.
    ExpireLog {
        room: usize,
    },
    /// The life of all that the room keeps ends.
    ForgetRoom {
        room: usize,
    },
    /// The server's clock seems to go back, because an earlier event came from the future.
    ClockGoesBack {
        room: usize,
    },
    PublishUpdate {
        room: usize,
    },
    /// A worker saves the oldest events, while another has read so many too.
    Archived {
        partition: usize,
        count: u64,
        others: u64,
        refused: bool,
    },
    /// The worker trims what is archived and old enough.
    Trim {
        room: usize,
        archived: Upto,
        keep: u32,
        age: Age,
    },
    /// The room begins anew, with events of two hours ago that are archived.
    LongAgo {
        room: usize,
        count: u16,
    },
    /// Somebody empties the archive by hand; a message comes after.
    EmptyArchive {
        room: usize,
    },
    /// A worker wants a partition's archive for itself.
    Lease {
        partition: usize,
        worker: usize,
        seconds: u64,
    },
    /// The life of a lease ends.
    EndLease {
        partition: usize,
    },
    FlushScripts,
    /// Another server writes on; the room is looked at each time.
    Elect {
        room: usize,
        times: usize,
    },
    /// The state that a later `LoseTail` goes back to.
    Save,
    LoseTail,
    Wipe,
    Restart,
    /// A key is of the wrong type, or ahead of what the script will write, while something is tried.
    Spoil {
        room: usize,
        key: Spoilt,
        act: Act,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoilt {
    Log,
    Meta,
    Gone,
    Archive,
    Active,
    ArchiveSize,
    Idempotency,
    LogAhead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Post,
    Read,
    Delete,
    TrimLog,
    TrimArchive,
}

/// A draft to be.
#[derive(Debug, Clone)]
pub struct Words {
    pub user: usize,
    pub what: What,
    pub cid: Option<u8>,
    pub content: usize,
}

impl Words {
    /// The plainest message.
    pub const MESSAGE: Self = Self {
        user: 0,
        what: What::Message,
        cid: None,
        content: 0,
    };
}

#[derive(Debug, Clone)]
pub enum What {
    Message,
    Gpt,
    Edit(Target, Right),
    Delete(Target, Right),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    Author,
    Owner,
    Checked,
}

#[derive(Debug, Clone)]
pub enum Target {
    /// Any event the room ever had, also one that is deleted, trimmed or lost.
    Any(Index),
    Newest,
    /// The same with a zero in front, which names nothing.
    Padded(Index),
    Never,
    Foreign,
}

/// How many bytes of events a page may hold.
#[derive(Debug, Clone, Copy)]
pub enum Bytes {
    Any(usize),
    /// Just enough for so many.
    JustFor(usize),
}

#[derive(Debug, Clone)]
pub enum Bound {
    Start,
    Position(Index, i8),
    Time(Index, i8),
    Seq(Index, i8),
    Beyond(u8),
}

/// Up to which number events are archived.
#[derive(Debug, Clone)]
pub enum Upto {
    /// About the number of any event the room ever had.
    Near(Index, i8),
    Beyond,
}

/// How old an event must be.
#[derive(Debug, Clone)]
pub enum Age {
    Any,
    Hour,
    /// Before the clocks began.
    Century,
    /// About as old as any event the room ever had, with some ms off.
    Of(Index, i8),
}

/// Operations that print one a line.
#[derive(Clone)]
pub struct Ops(pub Vec<Op>);

impl fmt::Debug for Ops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, op) in self.0.iter().enumerate() {
            write!(f, "\n  {number}: {op:?}")?;
        }
        Ok(())
    }
}

/// Some dozens of operations; `restarts` where the server's process may be ended too.
pub fn ops(restarts: bool) -> impl Strategy<Value = Ops> {
    prop::collection::vec(op(restarts), 1..80).prop_map(Ops)
}

/// The text of a content number, as the JSON string says it.
pub fn text(content: usize) -> &'static str {
    TEXTS[content % TEXTS.len()]
}

fn op(restarts: bool) -> impl Strategy<Value = Op> {
    let (room, partition) = (|| 0..ROOMS.len(), || 0..usize::from(PARTITIONS));
    let others = prop_oneof![2 => Just(0), 1 => 1..30_u64];
    let keep = prop_oneof![3 => Just(0), 3 => 0..30_u32, 1 => 0..400_u32, 1 => Just(u32::MAX)];
    let post = (
        room(),
        prop::collection::vec(words(), 1..6),
        3..400_u32,
        prop::option::weighted(0.1, 0..3_u32),
    );
    let read = (room(), bound(), any::<bool>(), 1..40_usize, bytes(), any::<bool>());
    let key = prop::sample::select(vec![
        Spoilt::Log,
        Spoilt::Meta,
        Spoilt::Gone,
        Spoilt::Archive,
        Spoilt::Active,
        Spoilt::ArchiveSize,
        Spoilt::Idempotency,
        Spoilt::LogAhead,
    ]);
    let act = prop_oneof![
        5 => Just(Act::Post),
        1 => Just(Act::Read),
        1 => Just(Act::Delete),
        1 => Just(Act::TrimLog),
        2 => Just(Act::TrimArchive),
    ];
    prop_oneof![
        300 => post.prop_map(|(room, drafts, log_cap, archive_left)| Op::Post { room, drafts, log_cap, archive_left }),
        220 => read.prop_map(|(room, after, newest, events, bytes, exists)| Op::Read {
            room, after, newest, events, bytes, exists
        }),
        20 => (room(), 250..300_usize, 3..20_u32).prop_map(|(room, count, log_cap)| Op::Burst { room, count, log_cap }),
        20 => room().prop_map(|room| Op::Delete { room }),
        25 => room().prop_map(|room| Op::AgeTombstone { room }),
        15 => room().prop_map(|room| Op::ExpireLog { room }),
        8 => room().prop_map(|room| Op::ForgetRoom { room }),
        10 => room().prop_map(|room| Op::ClockGoesBack { room }),
        10 => room().prop_map(|room| Op::PublishUpdate { room }),
        25 => (partition(), 1..20_u64, others, prop::bool::weighted(0.2)).prop_map(
            |(partition, count, others, refused)| Op::Archived { partition, count, others, refused }
        ),
        60 => (room(), upto(), keep, age()).prop_map(|(room, archived, keep, age)| Op::Trim { room, archived, keep, age }),
        15 => (room(), prop_oneof![8 => 1..100_u16, 2 => 2001..2300_u16]).prop_map(|(room, count)| Op::LongAgo {
            room, count
        }),
        20 => (partition(), 0..WORKERS.len(), 100..900_u64).prop_map(|(partition, worker, seconds)| Op::Lease {
            partition, worker, seconds
        }),
        5 => room().prop_map(|room| Op::EmptyArchive { room }),
        5 => partition().prop_map(|partition| Op::EndLease { partition }),
        10 => Just(Op::FlushScripts),
        20 => (room(), prop_oneof![4 => 0..3_usize, 1 => 15..20_usize]).prop_map(|(room, times)| Op::Elect { room, times }),
        15 => Just(Op::Save),
        12 => Just(Op::LoseTail),
        4 => Just(Op::Wipe),
        1 => Just(if restarts { Op::Restart } else { Op::FlushScripts }),
        50 => (room(), key, act).prop_map(|(room, key, act)| Op::Spoil { room, key, act }),
    ]
}

fn words() -> impl Strategy<Value = Words> {
    let right = || prop_oneof![3 => Just(Right::Author), 1 => Just(Right::Owner), 1 => Just(Right::Checked)];
    let target = || {
        prop_oneof![
            4 => any::<Index>().prop_map(Target::Any),
            4 => Just(Target::Newest),
            1 => any::<Index>().prop_map(Target::Padded),
            1 => Just(Target::Never),
            1 => Just(Target::Foreign),
        ]
    };
    let what = prop_oneof![
        6 => Just(What::Message),
        1 => Just(What::Gpt),
        3 => (target(), right()).prop_map(|(target, right)| What::Edit(target, right)),
        3 => (target(), right()).prop_map(|(target, right)| What::Delete(target, right)),
    ];
    (0..USERS.len(), what, prop::option::of(0..5_u8), 0..TEXTS.len()).prop_map(|(user, what, cid, content)| Words {
        user,
        what,
        cid,
        content,
    })
}

fn bound() -> impl Strategy<Value = Bound> {
    let near = || (any::<Index>(), -2..3_i8);
    prop_oneof![
        2 => Just(Bound::Start),
        2 => near().prop_map(|(index, off)| Bound::Position(index, off)),
        2 => near().prop_map(|(index, off)| Bound::Time(index, off)),
        3 => near().prop_map(|(index, off)| Bound::Seq(index, off)),
        1 => (0..3_u8).prop_map(Bound::Beyond),
    ]
}

fn upto() -> impl Strategy<Value = Upto> {
    prop_oneof![
        2 => (any::<Index>(), -2..3_i8).prop_map(|(index, off)| Upto::Near(index, off)),
        1 => Just(Upto::Beyond),
    ]
}

fn age() -> impl Strategy<Value = Age> {
    prop_oneof![
        4 => Just(Age::Any),
        2 => Just(Age::Hour),
        1 => Just(Age::Century),
        3 => (any::<Index>(), -2..3_i8).prop_map(|(index, off)| Age::Of(index, off)),
    ]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just(Bytes::Any(1 << 20)),
        (1..3000_usize).prop_map(Bytes::Any),
        (1..4_usize).prop_map(Bytes::JustFor),
    ]
}
