//! Connections and sessions that have not said who they are yet: few of one address, and not too many of all together.
//!
//! Whoever is genuine says so within moments, so when there are too many the oldest are the ones that will not. They are
//! closed to make room: a crowd of idle connections keeps nobody out. While there are too many, an address that has its
//! share of the places already gets no further one, so that a crowd does not make room for itself.
//!
//! The engine keeps a session until its time to CONNECT is over, also when its connection was closed. So sessions are
//! counted beside the connections: the memory of both is bounded.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dashmap::DashMap;
use prometheus::IntGauge;

use super::Conn;
use crate::model::Scope;

/// Sessions for each connection that may wait: those whose connections were closed take half of what the others do.
const SESSIONS_PER_CONNECTION: usize = 3;

/// The connections and sessions that wait, of one node.
#[derive(Debug)]
pub struct Waiting {
    per_address: usize,
    total: usize,
    by_address: DashMap<IpAddr, Held>,
    /// In the order they came; those that no longer wait are skipped when their turn comes.
    order: Mutex<VecDeque<Weak<Conn>>>,
    count: IntGauge,
    sessions: AtomicUsize,
}

/// What an address has of the places.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    connections: usize,
    sessions: usize,
}

/// A connection's place among those that wait, until dropped.
#[derive(Debug)]
pub struct Place {
    waiting: Arc<Waiting>,
    ip: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.count.dec();
        self.waiting.give_back(self.ip, |held| &mut held.connections);
    }
}

/// A session's place among those that wait, until released or dropped.
#[derive(Debug)]
pub struct SessionPlace {
    waiting: Arc<Waiting>,
    ip: IpAddr,
    released: AtomicBool,
}

impl SessionPlace {
    /// Its client is known.
    pub fn release(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            self.waiting.sessions.fetch_sub(1, Ordering::Relaxed);
            self.waiting.give_back(self.ip, |held| &mut held.sessions);
        }
    }
}

impl Drop for SessionPlace {
    fn drop(&mut self) {
        self.release();
    }
}

impl Waiting {
    /// At most `per_address` of one address, and `total` of all.
    pub fn new(per_address: u32, total: u32, count: IntGauge) -> Self {
        Self {
            per_address: per_address as usize,
            total: total.max(1) as usize,
            by_address: DashMap::new(),
            order: Mutex::default(),
            count,
            sessions: AtomicUsize::new(0),
        }
    }

    fn give_back(&self, ip: IpAddr, of: impl Fn(&mut Held) -> &mut usize) {
        self.by_address.remove_if_mut(&ip, |_, held| {
            let count = of(held);
            *count = count.saturating_sub(1);
            *held == Held::default()
        });
    }

    /// How many of `places` each of the addresses that are there may have.
    fn share(&self, places: usize) -> usize {
        (places / self.by_address.len().max(1)).max(1)
    }

    /// Gives a session of this address a place; `None` when there are too many.
    pub fn begin(self: &Arc<Self>, ip: IpAddr) -> Option<SessionPlace> {
        let ip = network(ip)?;
        let (sessions, max) = (
            self.sessions.load(Ordering::Relaxed),
            self.total * SESSIONS_PER_CONNECTION,
        );
        let share = if sessions * 2 < max { max } else { self.share(max / 2) };
        if sessions >= max {
            return None;
        }
        let mut held = self.by_address.entry(ip).or_default();
        if held.sessions >= share {
            return None;
        }
        held.sessions += 1;
        drop(held);
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Some(SessionPlace {
            waiting: self.clone(),
            ip,
            released: AtomicBool::new(false),
        })
    }

    /// Gives a connection of this address a place, unless it has one or is known already; `false` when the address has as
    /// many as it may.
    pub fn enter(self: &Arc<Self>, ip: IpAddr, conn: &Arc<Conn>) -> bool {
        let Some(ip) = network(ip) else { return true };
        let entered = conn.wait_with(|| {
            let full = usize::try_from(self.count.get()).unwrap_or(0) >= self.total;
            let share = if full { self.share(self.total) } else { self.per_address };
            let mut held = self.by_address.entry(ip).or_default();
            if held.connections >= share.min(self.per_address) {
                return None;
            }
            held.connections += 1;
            drop(held);
            self.count.inc();
            Some(Place {
                waiting: self.clone(),
                ip,
            })
        });
        if entered == Some(true) {
            self.make_room(conn);
        }
        entered != Some(false)
    }

    /// Closes the oldest that still wait while there are too many.
    fn make_room(&self, newcomer: &Arc<Conn>) {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.push_back(Arc::downgrade(newcomer));
        while usize::try_from(self.count.get()).unwrap_or(0) > self.total {
            let Some(oldest) = order.pop_front() else { break };
            if let Some(conn) = oldest.upgrade().filter(|conn| conn.is_waiting()) {
                conn.settle();
                conn.kill();
            }
        }
        // Most have long said who they are. A look at all of them is paid for by as many newcomers.
        if order.len() > 2 * self.total {
            order.retain(|conn| conn.upgrade().is_some_and(|conn| conn.is_waiting()));
        }
    }
}

/// What counts as one address.
fn network(ip: IpAddr) -> Option<IpAddr> {
    match Scope::address(ip) {
        Scope::Address(ip) => Some(ip),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn conns(count: usize) -> (Vec<Arc<tokio::net::TcpStream>>, Vec<Arc<Conn>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut streams = Vec::new();
        for _ in 0..count {
            streams.push(Arc::new(tokio::net::TcpStream::connect(address).await.unwrap()));
        }
        let conns = streams
            .iter()
            .map(|stream| Arc::new(Conn::new(stream, address)))
            .collect();
        (streams, conns)
    }

    fn waiting(per_address: u32, total: u32) -> Arc<Waiting> {
        let count = IntGauge::new("waiting", "waiting").unwrap();
        Arc::new(Waiting::new(per_address, total, count))
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[tokio::test]
    async fn an_address_has_few_places_and_gets_them_back() {
        let waiting = waiting(2, 100);
        let (_streams, conns) = conns(4).await;
        assert!(waiting.enter(ip(1), &conns[0]) && waiting.enter(ip(1), &conns[1]));
        assert!(!waiting.enter(ip(1), &conns[2]));
        assert!(waiting.enter(ip(2), &conns[2]), "another address has its own");
        assert!(waiting.enter(ip(1), &conns[0]), "who has a place keeps it");
        conns[0].settle();
        assert!(waiting.enter(ip(1), &conns[3]));
        assert!(waiting.enter(ip(1), &conns[0]), "who is known needs none");
        assert_eq!(waiting.count.get(), 3);
        drop(conns);
        assert_eq!((waiting.count.get(), waiting.by_address.len()), (0, 0));
    }

    #[tokio::test]
    async fn the_oldest_that_wait_make_room() {
        let waiting = waiting(100, 3);
        let (_streams, conns) = conns(20).await;
        conns[0].settle();
        for (n, conn) in conns.iter().enumerate() {
            assert!(waiting.enter(ip(u8::try_from(n).unwrap()), conn));
        }
        assert!(!conns[0].is_killed(), "who is known stays");
        assert_eq!(conns.iter().filter(|conn| conn.is_killed()).count(), 16);
        assert!(conns[17..].iter().all(|conn| !conn.is_killed()));
        assert_eq!(waiting.count.get(), 3);
        assert!(waiting.order.lock().unwrap().len() <= 6);
    }

    #[tokio::test]
    async fn an_address_with_its_share_makes_no_room_for_itself() {
        let waiting = waiting(100, 6);
        let (_streams, conns) = conns(10).await;
        for (n, conn) in conns[..6].iter().enumerate() {
            assert!(waiting.enter(ip(u8::try_from(n % 2).unwrap()), conn));
        }
        assert!(!waiting.enter(ip(0), &conns[6]) && !waiting.enter(ip(1), &conns[6]));
        assert!(conns.iter().all(|conn| !conn.is_killed()), "nobody had to go");
        assert!(waiting.enter(ip(2), &conns[7]), "a newcomer finds room");
        assert!(conns[0].is_killed());
        assert!(!waiting.enter(ip(0), &conns[8]), "but not for whom it was taken from");
    }

    #[test]
    fn sessions_are_bounded_and_a_crowd_of_one_address_leaves_room_for_others() {
        let waiting = waiting(100, 4);
        let crowd: Vec<_> = (0..20).filter_map(|_| waiting.begin(ip(1))).collect();
        assert_eq!(crowd.len(), 6, "half of all places");
        let others: Vec<_> = (2..20).filter_map(|n| waiting.begin(ip(n))).collect();
        assert_eq!(others.len(), 6, "the others, and then there is no place left");
        crowd[0].release();
        drop(crowd);
        drop(others);
        assert_eq!(
            (waiting.sessions.load(Ordering::Relaxed), waiting.by_address.len()),
            (0, 0)
        );
        assert!(waiting.begin(ip(1)).is_some());
    }
}
