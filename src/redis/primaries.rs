//! The primaries of a cluster with connections of their own, for what is said about rooms.
//!
//! fred's cluster client stops everything while it looks for a primary that is away; here that holds up the rooms of that
//! primary only.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use fred::prelude::*;
use fred::types::config::Server;
use futures::future::join_all;

use super::RedisError;
use super::client::{Purpose, connected};

/// How often the owners of the slots are asked for: a replica that takes over is found within this time.
const REFRESH_PERIOD: Duration = Duration::from_secs(1);
/// How long a server may take to tell them: one that hangs must not hold up what the others know.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Connections to one primary: a large answer does not delay everybody else, and nothing delays posts.
const LANES: usize = 3;
/// The one for posts.
const POSTS: usize = LANES - 1;
/// How long a call waits for a connection to the new owner of its slot.
const FOLLOW_MAX: Duration = Duration::from_millis(500);

type Lanes = [Client; LANES];
/// First and last slot with the owner.
type Ranges = Vec<(u16, u16, Server)>;
/// Makes an unconnected client of one server.
type Make = Box<dyn Fn(&Server) -> Client + Send + Sync>;

/// Who owns which slot, and the connections there.
pub(super) struct Primaries {
    routes: RwLock<Routes>,
    make: Make,
}

#[derive(Default)]
struct Routes {
    /// First and last slot with the owner, as the cluster said.
    ranges: Ranges,
    /// Slots that have moved since.
    moved: HashMap<u16, Server>,
    lanes: HashMap<Server, Lanes>,
}

fn lane_of(lane: usize, purpose: Purpose) -> usize {
    match purpose {
        Purpose::Post => POSTS,
        Purpose::Other => lane % POSTS,
    }
}

impl Routes {
    fn owner(&self, slot: u16) -> Option<&Server> {
        self.moved.get(&slot).or_else(|| {
            let mut ranges = self.ranges.iter();
            ranges
                .find(|(first, last, _)| (*first..=*last).contains(&slot))
                .map(|(_, _, server)| server)
        })
    }
}

impl Primaries {
    /// Follows the cluster that `cluster` is connected to, until dropped.
    pub fn start(cluster: Client, make: Make) -> Arc<Self> {
        let primaries = Arc::new(Self {
            routes: RwLock::default(),
            make,
        });
        tokio::spawn(keep(Arc::downgrade(&primaries), cluster));
        primaries
    }

    /// The slots, by their places in the list, that each known primary holds.
    pub fn group(&self, slots: Vec<u16>) -> Vec<Vec<u16>> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let mut groups: Vec<(&Server, Vec<u16>)> = Vec::new();
        for (place, slot) in (0u16..).zip(slots) {
            // A slot that nobody holds at the moment belongs to no group.
            let Some(owner) = routes.owner(slot) else { continue };
            match groups.iter_mut().find(|(known, _)| *known == owner) {
                Some((_, places)) => places.push(place),
                None => groups.push((owner, vec![place])),
            }
        }
        groups.into_iter().map(|(_, places)| places).collect()
    }

    /// The connection for a slot; calls of one `lane` for one purpose keep their order.
    pub fn client(&self, slot: u16, lane: usize, purpose: Purpose) -> Result<Client, RedisError> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        routes
            .owner(slot)
            .and_then(|server| routes.lanes.get(server))
            .map(|lanes| &lanes[lane_of(lane, purpose)])
            .filter(|client| client.is_connected())
            .cloned()
            .ok_or(RedisError::Unavailable)
    }

    /// A connection to each known primary.
    pub fn one_of_each(&self) -> Result<Vec<Client>, RedisError> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let first = routes.lanes.values().map(|lanes| &lanes[0]);
        if routes.lanes.is_empty() || !first.clone().all(ClientLike::is_connected) {
            return Err(RedisError::Unavailable);
        }
        Ok(first.cloned().collect())
    }

    /// Whether the error says that another primary owns the slot, and that one can be reached now.
    pub async fn follow(&self, error: &Error, lane: usize, purpose: Purpose) -> bool {
        let Some((slot, server)) = moved_to(error.details()) else {
            return false;
        };
        let client = {
            let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
            routes.moved.insert(slot, server.clone());
            self.lanes_of(&mut routes, &server)[lane_of(lane, purpose)].clone()
        };
        tokio::time::timeout(FOLLOW_MAX, connected(&client)).await.is_ok()
    }

    /// Waits until every primary is known and connected.
    pub async fn wait_connected(&self) {
        loop {
            let clients = self.clients();
            if !clients.is_empty() && clients.iter().all(ClientLike::is_connected) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Closes the connections.
    pub async fn close(&self) {
        for client in self.clients() {
            let _closed = client.quit().await;
        }
    }

    fn clients(&self) -> Vec<Client> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        routes.lanes.values().flatten().cloned().collect()
    }

    fn lanes_of<'a>(&self, routes: &'a mut Routes, server: &Server) -> &'a Lanes {
        routes.lanes.entry(server.clone()).or_insert_with(|| {
            std::array::from_fn(|_| {
                let client = (self.make)(server);
                let _connection = client.connect();
                client
            })
        })
    }

    /// Takes over what the cluster says; returns the connections that are no longer needed.
    fn update(&self, ranges: Ranges) -> Vec<Client> {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        for (_, _, server) in &ranges {
            self.lanes_of(&mut routes, server);
        }
        routes.ranges = ranges;
        routes.moved.clear();
        let Routes { ranges, lanes, .. } = &mut *routes;
        let mut unused = Vec::new();
        lanes.retain(|server, clients| {
            let used = ranges.iter().any(|(_, _, owner)| owner == server);
            if !used {
                unused.extend(clients.iter().cloned());
            }
            used
        });
        unused
    }
}

async fn keep(primaries: Weak<Primaries>, cluster: Client) {
    loop {
        let Some(known) = primaries.upgrade() else { return };
        let mut asked = known.clients();
        asked.push(cluster.clone());
        drop(known);
        let answers = join_all(asked.iter().filter(|client| client.is_connected()).map(layout)).await;
        if let Some(ranges) = newest(answers.into_iter().flatten()) {
            let Some(known) = primaries.upgrade() else { return };
            for client in known.update(ranges) {
                tokio::spawn(async move {
                    let _closed = client.quit().await;
                });
            }
        }
        // Soon again while nothing is known.
        let period = if asked.len() > 1 {
            REFRESH_PERIOD
        } else {
            REFRESH_PERIOD / 20
        };
        tokio::time::sleep(period).await;
    }
}

/// Who owns what, with the number of the last election that the answering server knows; `None` when it has nothing to say
/// in time.
async fn layout(client: &Client) -> Option<(u64, Ranges)> {
    let (info, slots): (Result<String, Error>, Result<Value, Error>) = tokio::time::timeout(ANSWER_MAX, async {
        futures::join!(client.cluster_info(), client.cluster_slots())
    })
    .await
    .ok()?;
    let host = client
        .active_connections()
        .first()
        .map(|server| server.host.to_string());
    let ranges = read_slots(slots.ok()?, &host.unwrap_or_default());
    (!ranges.is_empty()).then_some((read_epoch(&info.ok()?), ranges))
}

/// The layout that the most recent election has led to: a server that is cut off from the others does not know of it.
fn newest(layouts: impl Iterator<Item = (u64, Ranges)>) -> Option<Ranges> {
    layouts.max_by_key(|(epoch, _)| *epoch).map(|(_, ranges)| ranges)
}

/// Reads the number of the last election in CLUSTER INFO.
fn read_epoch(info: &str) -> u64 {
    let mut lines = info.lines();
    let epoch = lines.find_map(|line| line.strip_prefix("cluster_current_epoch:")?.trim().parse().ok());
    epoch.unwrap_or(0)
}

/// Reads CLUSTER SLOTS; a server without a name of its own is on the host that was asked.
fn read_slots(answer: Value, host: &str) -> Ranges {
    let range = |item: Value| {
        let parts = item.into_array();
        let slot = |index: usize| u16::try_from(parts.get(index)?.as_i64()?).ok();
        let primary = parts.get(2)?.clone().into_array();
        let name = primary.first().and_then(Value::as_string).unwrap_or_default();
        let port = u16::try_from(primary.get(1)?.as_i64()?).ok()?;
        let server = Server::new(if name.is_empty() { host.to_owned() } else { name }, port);
        Some((slot(0)?, slot(1)?, server))
    };
    answer.into_array().into_iter().filter_map(range).collect()
}

/// Reads `MOVED <slot> <host>:<port>`.
fn moved_to(details: &str) -> Option<(u16, Server)> {
    let (slot, address) = details.strip_prefix("MOVED ")?.split_once(' ')?;
    let (host, port) = address.rsplit_once(':')?;
    if host.is_empty() {
        return None;
    }
    Some((slot.parse().ok()?, Server::new(host, port.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_of_the_last_election_is_believed() {
        let owner = |port| vec![(0, 16383, Server::new("127.0.0.1", port))];
        let epoch = |number: u64| read_epoch(&format!("cluster_state:ok\r\ncluster_current_epoch:{number}\r\n"));
        let layouts = [(epoch(7), owner(1)), (epoch(8), owner(2)), (epoch(7), owner(1))];
        assert_eq!(newest(layouts.into_iter()), Some(owner(2)));
        assert_eq!(newest(std::iter::empty()), None);
        assert_eq!(read_epoch("ERR"), 0);
    }

    #[test]
    fn a_moved_slot_names_its_new_owner() {
        let (slot, server) = moved_to("MOVED 3999 127.0.0.1:6381").unwrap();
        assert_eq!((slot, &*server.host, server.port), (3999, "127.0.0.1", 6381));
        assert!(moved_to("ASK 3999 127.0.0.1:6381").is_none());
        assert!(moved_to("MOVED 3999 :6381").is_none());
    }
}
