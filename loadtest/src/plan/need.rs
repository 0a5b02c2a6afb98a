//! The arithmetic from a crowd and prices to machines.

use super::costs::Costs;

/// Who is there and what they do.
#[derive(Clone, Debug, PartialEq)]
pub struct Crowd {
    /// Sockets connected at once.
    pub sockets: f64,
    /// Rooms that each is in.
    pub rooms_of_user: f64,
    /// Members of a room that are connected.
    pub members: f64,
    /// Messages that each sends in an hour, at the peak.
    pub messages_per_hour: f64,
    /// Share of messages that ask the model.
    pub asked: f64,
    /// How long a reply takes, s.
    pub reply_seconds: f64,
}

/// What a machine may bear.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Cores of a node.
    pub cores: f64,
    /// Memory of a node, GiB.
    pub gib: f64,
    /// How much of the cores the peak may use.
    pub busy: f64,
    /// Within what time the sockets of a lost node come back, s.
    pub back_within: f64,
    /// Replies that a worker writes at once.
    pub replies: f64,
    /// What an event takes in a room's log, bytes.
    pub event_bytes: f64,
}

/// How much of a node may be used while another one is away: nothing waits yet.
const BUSY_WITHOUT_ONE: f64 = 0.9;
/// How much of a node's memory sockets may take: the rest is for bursts and slow readers.
const MEMORY_USED: f64 = 0.7;
/// Events that a room's log keeps when the archive has them all.
const KEPT: f64 = 1000.0;
/// A deployment that needs more than this is another one.
const NODES_MAX: u32 = 10_000;

/// What a crowd needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Need {
    /// Messages a second.
    pub messages: f64,
    /// Copies that members receive, a second.
    pub deliveries: f64,
    /// Nodes on which a room has members.
    pub nodes_of_room: f64,
    /// Cores that all nodes use at the peak.
    pub node_cores: f64,
    /// Cores that all nodes use while the sockets of a lost one come back.
    pub cores_without_one: f64,
    /// Memory of a node's sockets when another one is away, GiB.
    pub node_gib: f64,
    /// Nodes.
    pub nodes: u32,
    /// What their number follows from.
    pub bound: &'static str,
    /// Cores that Redis uses while the sockets of a lost node come back, over all its primaries.
    pub redis_cores: f64,
    /// Primaries.
    pub primaries: u32,
    /// Memory of Redis, GiB, all primaries together.
    pub redis_gib: f64,
    /// Cores that archiving uses.
    pub archive_cores: f64,
    /// Workers.
    pub workers: u32,
}

/// On how many of `nodes` a room has members, when its `members` are connected anywhere.
pub fn nodes_of_room(nodes: f64, members: f64) -> f64 {
    nodes * (1.0 - (1.0 - 1.0 / nodes).powf(members))
}

/// The least that bears the crowd, also without one of its nodes.
pub fn need(costs: &Costs, crowd: &Crowd, machine: &Machine) -> Option<Need> {
    let mut bound = "one would do; two, so that one may be lost";
    for nodes in 2..=NODES_MAX {
        let need = with(costs, crowd, machine, nodes);
        let n = f64::from(nodes);
        if need.node_cores > n * machine.cores * machine.busy {
            bound = "processors at the peak";
        } else if need.cores_without_one > (n - 1.0) * machine.cores * BUSY_WITHOUT_ONE {
            bound = "processors without one node";
        } else if need.node_gib > machine.gib * MEMORY_USED {
            bound = "memory";
        } else {
            return Some(Need { bound, ..need });
        }
    }
    None
}

fn with(costs: &Costs, crowd: &Crowd, machine: &Machine, nodes: u32) -> Need {
    let n = f64::from(nodes);
    let messages = crowd.sockets * crowd.messages_per_hour / 3600.0;
    // A reply is a message too.
    let events = messages * (1.0 + crowd.asked);
    let touched = nodes_of_room(n, crowd.members);
    let message = costs.message(crowd.members);
    let peak = |message: f64, hop: f64, socket: f64, node: f64| {
        (events * (message + hop * (touched - 1.0)) + crowd.sockets * socket + n * node) / 1e6
    };
    let node_cores = peak(message, costs.hop.0, costs.socket_second.0, costs.node_second.0);
    let redis_busy = peak(
        costs.redis_message,
        costs.hop.1,
        costs.socket_second.1,
        costs.node_second.1,
    );
    let back = crowd.sockets / n / machine.back_within;
    let redis_cores = redis_busy + (costs.redis_second + back * costs.connect.1) / 1e6;
    let rooms = crowd.sockets * crowd.rooms_of_user / crowd.members;
    let gib = |kib: f64| kib / 1024.0 / 1024.0;
    let workers_replying = messages * crowd.asked * crowd.reply_seconds / machine.replies;
    let archive_cores = events * costs.archive / 1e6;
    Need {
        messages: events,
        deliveries: events * crowd.members,
        nodes_of_room: touched,
        node_cores,
        cores_without_one: node_cores + back * costs.connect.0 / 1e6,
        node_gib: gib(costs.node_kib + crowd.sockets / (n - 1.0) * costs.socket_kib.0),
        nodes,
        bound: "",
        redis_cores,
        // A primary is one thread.
        primaries: at_least_one(redis_cores / machine.busy),
        redis_gib: gib(crowd.sockets * costs.socket_kib.1 + rooms * KEPT * machine.event_bytes / 1024.0),
        archive_cores,
        // Two, so that one may be lost.
        workers: at_least_one(workers_replying.max(archive_cores / machine.busy)).max(2),
    }
}

fn at_least_one(number: f64) -> u32 {
    number.ceil().max(1.0) as u32
}
