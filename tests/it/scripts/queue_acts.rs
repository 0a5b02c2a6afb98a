//! What may happen to the queue of questions, and how likely it is.

use proptest::prelude::*;
use proptest::sample::Index;

use super::op::USERS;
use super::questions::WORKERS;
use super::queue_model::ROOMS;
use super::server::PARTITIONS;

#[derive(Debug, Clone)]
pub enum Act {
    Ask(usize, usize),
    /// A user asks in every room.
    AskEverywhere(usize),
    /// A worker takes the oldest question of an outbox in; if it dies on the way, the question stays there.
    TakeIn(u16, bool),
    /// A worker that stood still takes a question in that may have ended meanwhile, or have been asked once more.
    TakeInLate(Index),
    Take(usize, u64),
    /// A worker claims something that it had, perhaps long ago.
    Claim(usize, Index),
    /// A worker takes over what the others have, which all have fallen silent.
    TakeOver(usize, u64),
    Beat(usize),
    /// Under any claim there ever was.
    Write(Index, bool),
    Store(Index),
    /// The worker may die before the question is kept for operators.
    GiveUp(Index, bool),
    PutOff(Index, bool),
    /// Somebody cancels.
    Cancel(Index),
    /// Somebody cancels what is being answered.
    CancelRunning(Index),
    /// Whoever notices lets the room and the user of a question go on that has ended.
    Finish(Index),
    /// The same by whoever had a claim, perhaps in an earlier life; it may keep the question for operators.
    FinishLate(Index, bool),
    /// What waits for another attempt has waited long enough.
    Wake,
    Overdue(Index),
    /// A worker stands still while another one takes over and begins the reply anew; then it stores its own, or gives up.
    WakeLate(Index, bool),
    /// An operator has a dead letter tried again; if it dies on the way, the letter stays there.
    Again(Index, bool),
    /// The same, but it dies, the second life ends like the first, and both letters are tried again. Where there is none, a
    /// question is given up first.
    AgainAndAgain(Index),
    Pause,
    /// After an hour.
    Resume,
    FlushScripts,
}

pub fn acts() -> impl Strategy<Value = Vec<Act>> {
    let user = || 0..USERS.len();
    let worker = || 0..WORKERS.len();
    let pick = any::<Index>;
    let room = prop_oneof![4 => 0..3_usize, 1 => 0..ROOMS];
    let act = prop_oneof![
        16 => (room, user()).prop_map(|(room, user)| Act::Ask(room, user)),
        1 => user().prop_map(Act::AskEverywhere),
        16 => (0..PARTITIONS, prop::bool::weighted(0.2)).prop_map(|(partition, dies)| Act::TakeIn(partition, dies)),
        2 => pick().prop_map(Act::TakeInLate),
        12 => (worker(), 1..4_u64).prop_map(|(worker, count)| Act::Take(worker, count)),
        6 => (worker(), pick()).prop_map(|(worker, pick)| Act::Claim(worker, pick)),
        4 => (worker(), 1..4_u64).prop_map(|(worker, count)| Act::TakeOver(worker, count)),
        3 => worker().prop_map(Act::Beat),
        8 => (pick(), prop::bool::weighted(0.3)).prop_map(|(pick, anew)| Act::Write(pick, anew)),
        6 => pick().prop_map(Act::Store),
        6 => (pick(), prop::bool::weighted(0.3)).prop_map(|(pick, dies)| Act::GiveUp(pick, dies)),
        5 => (pick(), any::<bool>()).prop_map(|(pick, at_once)| Act::PutOff(pick, at_once)),
        3 => pick().prop_map(Act::Cancel),
        5 => pick().prop_map(Act::CancelRunning),
        8 => pick().prop_map(Act::Finish),
        4 => (pick(), prop::bool::weighted(0.3)).prop_map(|(pick, buries)| Act::FinishLate(pick, buries)),
        3 => Just(Act::Wake),
        2 => pick().prop_map(Act::Overdue),
        5 => (pick(), any::<bool>()).prop_map(|(pick, stores)| Act::WakeLate(pick, stores)),
        6 => (pick(), prop::bool::weighted(0.3)).prop_map(|(pick, dies)| Act::Again(pick, dies)),
        6 => pick().prop_map(Act::AgainAndAgain),
        1 => Just(Act::Pause),
        2 => Just(Act::Resume),
        1 => Just(Act::FlushScripts),
    ];
    prop::collection::vec(act, 1..80)
}
