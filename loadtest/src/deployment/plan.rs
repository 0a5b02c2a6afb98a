//! What a deployment consists of.

use clap::ValueEnum;

/// How Redis is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Topology {
    /// One server with an append-only file, behind a proxy that can delay, cut and black-hole
    Standalone,
    /// One master, two replicas, three sentinels
    Sentinel,
    /// Three masters with one replica each
    Cluster,
}

/// What an ack promises, passed on to the nodes; Redis is configured to match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// The script's reply
    Memory,
    /// `appendfsync always`
    Fsync,
    /// WAIT, with `min-replicas-to-write 1`
    Replica,
}

/// What is to be started.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// How Redis is set up.
    pub topology: Topology,
    /// What an ack promises.
    pub durability: Durability,
    /// Chat nodes.
    pub nodes: u16,
    /// Rooms; `user<i>` belongs to `room-<i mod rooms>`.
    pub rooms: u32,
    /// Users, each with a token.
    pub users: u32,
    /// Workers.
    pub workers: u16,
    /// Whether each node reaches a standalone Redis through a proxy of its own.
    pub proxied: bool,
    /// Settings of the nodes and the worker beyond those that they cannot do without.
    pub settings: &'a [(&'a str, &'a str)],
}

/// Lets an option be printed as it is typed.
macro_rules! display_as_value {
    ($($name:ty),+) => { $(impl std::fmt::Display for $name {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            let value = clap::ValueEnum::to_possible_value(self);
            f.pad(value.as_ref().map_or("", |value| value.get_name()))
        }
    })+ };
}
pub(crate) use display_as_value;
display_as_value!(Topology, Durability);
