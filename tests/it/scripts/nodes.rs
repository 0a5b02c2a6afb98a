//! Which sockets are where, and what is left when a node dies, against plain sets.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use roomcast::model::UserId;
use roomcast::redis::{Load, OwnedSocket};

use super::op::{ROOMS, USERS};
use super::server::Server;

const NODES: [&str; 2] = ["a", "b"];
const SOCKETS: usize = 3;

/// What every socket is counted by.
const LEASED: &str = "ip:192.0.2.7";

/// A node's socket: (node, number).
type Place = (usize, usize);

#[derive(Debug, Clone)]
pub enum Act {
    Announce(usize),
    Renew(usize),
    /// The liveness key's life ends.
    Stall(usize),
    Reap(usize),
    /// A reaper has the claim and dies with it.
    Claim(usize),
    Retire(usize),
    Register(Place, usize),
    Join(Place, usize),
    Leave(Place, usize, bool),
    Unregister(Place),
    DeleteSets(usize),
}

#[derive(Default)]
struct Model {
    alive: BTreeSet<usize>,
    known: BTreeSet<usize>,
    claimed: BTreeSet<usize>,
    owned: BTreeMap<Place, OwnedSocket>,
    users: BTreeMap<usize, BTreeSet<String>>,
    joined: BTreeMap<usize, BTreeSet<String>>,
}

pub fn acts() -> impl Strategy<Value = Vec<Act>> {
    let node = || 0..NODES.len();
    let place = || (0..NODES.len(), 0..SOCKETS);
    let room = || 0..ROOMS.len();
    let act = prop_oneof![
        2 => node().prop_map(Act::Announce),
        1 => node().prop_map(Act::Renew),
        2 => node().prop_map(Act::Stall),
        3 => node().prop_map(Act::Reap),
        1 => node().prop_map(Act::Claim),
        1 => node().prop_map(Act::Retire),
        4 => (place(), room()).prop_map(|(place, room)| Act::Register(place, room)),
        4 => (place(), room()).prop_map(|(place, room)| Act::Join(place, room)),
        2 => (place(), room(), any::<bool>()).prop_map(|(place, room, good)| Act::Leave(place, room, good)),
        2 => place().prop_map(Act::Unregister),
        1 => room().prop_map(Act::DeleteSets),
    ];
    prop::collection::vec(act, 1..40)
}

pub async fn run(server: &mut Server, acts: &[Act]) -> Result<(), TestCaseError> {
    server.wire.call(&["FLUSHALL"]).await;
    let mut model = Model::default();
    for (number, act) in acts.iter().enumerate() {
        let done = match model.one(server, act).await {
            Ok(()) => model.matches(server).await,
            failed => failed,
        };
        done.map_err(|error| TestCaseError::fail(format!("act {number}, {act:?}: {error}")))?;
        server.watch_slots().await?;
    }
    Ok(())
}

fn socket_of((node, number): Place) -> OwnedSocket {
    OwnedSocket {
        socket: format!("socket-{node}-{number}"),
        user: UserId::new(USERS[number]).unwrap(),
        rooms: Vec::new(),
        joined: Vec::new(),
        leases: vec![LEASED.parse().unwrap()],
        login: Some("login".to_owned()),
        ip: Some([192, 0, 2, 7].into()),
        since: 1_700_000_000_000,
    }
}

impl Model {
    async fn one(&mut self, server: &mut Server, act: &Act) -> Result<(), TestCaseError> {
        let redis = server.redis.clone();
        match act {
            Act::Announce(node) => {
                redis.announce_node(NODES[*node], Load::default()).await.unwrap();
                self.alive.insert(*node);
                self.known.insert(*node);
            }
            Act::Renew(node) => {
                let renewed = redis.renew_node(NODES[*node], Load::default()).await.unwrap();
                prop_assert_eq!(renewed, self.alive.contains(node));
            }
            Act::Stall(node) => {
                server
                    .wire
                    .call(&["DEL", &format!("rc:{{node:{}}}:alive", NODES[*node])])
                    .await;
                self.alive.remove(node);
            }
            Act::Claim(node) => {
                let claim = format!("rc:{{node:{}}}:claim", NODES[*node]);
                server.wire.call(&["SET", &claim, "1", "PX", "600000"]).await;
                self.claimed.insert(*node);
            }
            Act::Reap(node) => {
                let reaped = redis.reap_node(NODES[*node]).await.unwrap();
                prop_assert_eq!(reaped, self.reap(*node));
            }
            Act::Retire(node) => {
                redis.retire_node(NODES[*node]).await.unwrap();
                self.alive.remove(node);
                self.reap(*node);
            }
            Act::Register(place, room) | Act::Join(place, room) => {
                let joins = matches!(act, Act::Join(..));
                let mut traces = self.owned.get(place).cloned().unwrap_or_else(|| socket_of(*place));
                redis
                    .renew_leases(&LEASED.parse().unwrap(), vec![traces.socket.clone()])
                    .await
                    .unwrap();
                let (name, node) = (server.room(*room), NODES[place.0]);
                for (list, wanted) in [(&mut traces.rooms, true), (&mut traces.joined, joins)] {
                    if wanted && !list.contains(&name) {
                        list.push(name.clone());
                    }
                }
                self.users.entry(*room).or_default().insert(traces.socket.clone());
                if joins {
                    redis.join_room(node, &traces, &name).await.unwrap();
                    self.joined.entry(*room).or_default().insert(traces.socket.clone());
                } else {
                    let socket = OwnedSocket {
                        rooms: vec![name],
                        joined: Vec::new(),
                        ..traces.clone()
                    };
                    redis.register_socket(node, &socket, &traces).await.unwrap();
                }
                self.owned.insert(*place, traces);
            }
            Act::Leave(place, room, for_good) => {
                let socket = socket_of(*place);
                redis
                    .leave_room(&socket.socket, &socket.user, &server.room(*room), *for_good)
                    .await
                    .unwrap();
                self.joined.entry(*room).or_default().remove(&socket.socket);
                if *for_good {
                    self.users.entry(*room).or_default().remove(&socket.socket);
                }
            }
            Act::Unregister(place) => {
                if let Some(traces) = self.owned.remove(place) {
                    redis.unregister_socket(NODES[place.0], &traces).await.unwrap();
                    self.forget(&traces.socket);
                }
            }
            Act::DeleteSets(room) => {
                redis.delete_room_sets(&server.room(*room)).await.unwrap();
                self.users.remove(room);
                self.joined.remove(room);
            }
        }
        Ok(())
    }

    /// What a reaper must get.
    fn reap(&mut self, node: usize) -> Option<usize> {
        if self.alive.contains(&node) || self.claimed.contains(&node) {
            return None;
        }
        self.known.remove(&node);
        let dead: Vec<Place> = self.owned.keys().filter(|place| place.0 == node).copied().collect();
        for place in &dead {
            if let Some(traces) = self.owned.remove(place) {
                self.forget(&traces.socket);
            }
        }
        Some(dead.len())
    }

    fn forget(&mut self, socket: &str) {
        for sockets in self.users.values_mut().chain(self.joined.values_mut()) {
            sockets.remove(socket);
        }
    }

    async fn matches(&self, server: &mut Server) -> Result<(), TestCaseError> {
        for (room, name) in ROOMS.iter().enumerate() {
            for (set, model) in [("roomUsers", &self.users), ("joinedRoomUsers", &self.joined)] {
                let members = server.wire.call(&["SMEMBERS", &format!("{set}:{name}")]).await.list();
                let found: BTreeSet<String> = members.iter().map(|member| member.text()).collect();
                prop_assert_eq!(
                    found,
                    model.get(&room).cloned().unwrap_or_default(),
                    "{} of {}",
                    set,
                    room
                );
            }
        }
        let leases = format!("rc:{{tokenRequests:{}}}:leases", &LEASED[3..]);
        let leased = server.wire.call(&["ZRANGE", &leases, "0", "-1"]).await.list();
        let leased: BTreeSet<String> = leased.iter().map(|socket| socket.text()).collect();
        let expected: BTreeSet<String> = self.owned.values().map(|socket| socket.socket.clone()).collect();
        prop_assert_eq!(leased, expected, "leases");
        for (node, name) in NODES.iter().enumerate() {
            let owned = server
                .wire
                .call(&["HLEN", &format!("rc:{{node:{name}}}:owned")])
                .await
                .text();
            let expected = self.owned.keys().filter(|place| place.0 == node).count();
            prop_assert_eq!(owned, expected.to_string(), "owned by {}", name);
            prop_assert_eq!(
                server.redis.is_known_node(name).await.unwrap(),
                self.known.contains(&node)
            );
        }
        for user in USERS {
            let ttl: i64 = server
                .wire
                .call(&["TTL", &format!("userRooms:{user}")])
                .await
                .text()
                .parse()
                .unwrap();
            prop_assert!(ttl == -2 || (1..=120).contains(&ttl), "userRooms of {}: {}", user, ttl);
        }
        Ok(())
    }
}
