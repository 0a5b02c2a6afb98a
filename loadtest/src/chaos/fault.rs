//! The faults, and the seeded order in which they come.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

use super::rng::Rng;
use crate::deployment::Topology;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Kind {
    /// kill -9 of a node; it comes back once the others have taken over
    NodeKill,
    /// SIGSTOP of a node, SIGCONT 2–15 s later
    NodeStop,
    /// SIGTERM of a node; it comes back once it has ended
    NodeDrain,
    /// kill -9 of Redis and a restart from its append-only file (standalone)
    RedisRestart,
    /// SIGSTOP of a Redis that takes writes, SIGCONT 1–8 s later
    RedisStop,
    /// kill -9 of a master; a replica is promoted, the dead one comes back as a replica (sentinel, cluster)
    Failover,
    /// A failover by order: `SENTINEL FAILOVER` or `CLUSTER FAILOVER`
    GracefulFailover,
    /// CLIENT KILL of one subscribed connection
    BusCut,
    /// CLIENT KILL TYPE pubsub on every server
    PubsubKill,
    /// SCRIPT FLUSH on every server
    ScriptFlush,
    /// A node's way to Redis gets 20–250 ms longer (standalone)
    NetDelay,
    /// A node's connections to Redis are cut and refused (standalone)
    NetCut,
    /// A node's connections to Redis stay open and carry nothing (standalone)
    BlackHole,
    /// Some readers of a loud room do not read for a while
    SlowReaders,
    /// Some clients lose their network
    ClientFlap,
    /// kill -9 of a worker; it comes back
    WorkerKill,
    /// kill -9 of the services; they come back
    BackendKill,
    /// SIGSTOP of the services, SIGCONT 1–8 s later
    BackendStop,
}

impl Kind {
    /// Whether it can happen in a topology.
    pub fn is_possible(self, topology: Topology) -> bool {
        match self {
            Self::RedisRestart | Self::NetDelay | Self::NetCut | Self::BlackHole => topology == Topology::Standalone,
            Self::Failover | Self::GracefulFailover => topology != Topology::Standalone,
            _ => true,
        }
    }

    /// Whether the clients alone suffer.
    pub fn is_of_clients(self) -> bool {
        matches!(self, Self::SlowReaders | Self::ClientFlap)
    }

    fn hold(self, rng: &mut Rng) -> Duration {
        match self {
            Self::NodeStop => rng.millis(2_000, 15_000),
            Self::BlackHole => rng.millis(1_000, 15_000),
            Self::NetCut | Self::RedisRestart => rng.millis(100, 6_000),
            Self::RedisStop | Self::BackendStop | Self::BackendKill | Self::WorkerKill => rng.millis(1_000, 8_000),
            Self::NetDelay => rng.millis(2_000, 6_000),
            Self::SlowReaders => rng.millis(3_000, 12_000),
            Self::ClientFlap => rng.millis(200, 5_000),
            _ => Duration::ZERO,
        }
    }
}

/// One fault with everything the seed decides about it.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// How long the system runs undisturbed before it.
    pub gap: Duration,
    /// How long it lasts; zero for what is over at once.
    pub hold: Duration,
    /// Which of the possible targets, modulo their number.
    pub pick: usize,
    /// Where it has a strength.
    pub strength: Duration,
    /// What clients suffer at the same time.
    pub beside: Option<Kind>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(beside) = self.beside {
            write!(f, " + {beside}")?;
        }
        if self.hold > Duration::ZERO {
            write!(f, " for {:.1} s", self.hold.as_secs_f64())?;
        }
        Ok(())
    }
}

/// An endless sequence of faults that depends on the seed, the topology and the selection alone.
#[derive(Debug)]
pub struct Schedule {
    rng: Rng,
    kinds: Vec<Kind>,
    deck: Vec<Kind>,
}

impl Schedule {
    /// All faults possible in the topology, or only those selected; `None` when that leaves nothing.
    pub fn new(seed: u64, topology: Topology, only: &[Kind]) -> Option<Self> {
        let selected = |kind: &&Kind| only.is_empty() || only.contains(kind);
        let possible = Kind::value_variants().iter().filter(|kind| kind.is_possible(topology));
        let kinds: Vec<_> = possible.filter(selected).copied().collect();
        (!kinds.is_empty()).then(|| Self {
            rng: Rng::new(seed),
            kinds,
            deck: Vec::new(),
        })
    }

    /// The next fault: every kind once in a shuffled order before any comes again.
    pub fn draw(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.kinds);
            self.rng.shuffle(&mut self.deck);
        }
        // `new` keeps the list from being empty.
        let kind = self.deck.pop().unwrap_or(Kind::ClientFlap);
        let rng = &mut self.rng;
        // Each field draws always, so that one choice does not shift the others.
        let (gap, hold, pick, strength) = (
            rng.millis(500, 3_000),
            kind.hold(rng),
            rng.below(1 << 20),
            rng.millis(20, 250),
        );
        let (alone, flap) = (!rng.one_in(3), rng.one_in(2));
        let beside = if flap { Kind::ClientFlap } else { Kind::SlowReaders };
        let beside = (!alone && !kind.is_of_clients()).then_some(beside);
        Fault {
            kind,
            gap,
            hold,
            pick,
            strength,
            beside,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(seed: u64, count: usize) -> Vec<String> {
        let mut schedule = Schedule::new(seed, Topology::Standalone, &[]).unwrap();
        (0..count).map(|_| format!("{:?}", schedule.draw())).collect()
    }

    #[test]
    fn a_seed_means_the_same_faults() {
        assert_eq!(first(42, 60), first(42, 60));
        assert_ne!(first(42, 60), first(43, 60));
    }

    #[test]
    fn every_possible_kind_comes_before_any_comes_again() {
        for topology in [Topology::Standalone, Topology::Sentinel, Topology::Cluster] {
            let mut schedule = Schedule::new(1, topology, &[]).unwrap();
            let mut drawn: Vec<_> = (0..schedule.kinds.len()).map(|_| schedule.draw().kind).collect();
            drawn.sort_unstable_by_key(|kind| format!("{kind:?}"));
            let count = drawn.len();
            drawn.dedup();
            assert_eq!(drawn.len(), count);
            assert!(drawn.iter().all(|kind| kind.is_possible(topology)));
        }
    }

    #[test]
    fn a_selection_that_is_impossible_leaves_nothing() {
        assert!(Schedule::new(1, Topology::Cluster, &[Kind::BlackHole]).is_none());
    }
}
