//! Connections that have not said who they are yet: few of one address, and not too many of all together.
//!
//! Whoever is genuine says so within moments, so when there are too many the oldest are the ones that will not. They are
//! closed to make room: a crowd of idle connections keeps nobody out.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dashmap::DashMap;
use prometheus::IntGauge;

use super::Conn;
use crate::model::Scope;

/// The connections that wait, of one node.
#[derive(Debug)]
pub struct Waiting {
    per_address: usize,
    total: usize,
    by_address: DashMap<IpAddr, usize>,
    /// In the order they came; those that no longer wait are skipped when their turn comes.
    order: Mutex<VecDeque<Weak<Conn>>>,
    count: IntGauge,
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
        self.waiting.by_address.remove_if_mut(&self.ip, |_, count| {
            *count = count.saturating_sub(1);
            *count == 0
        });
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
        }
    }

    /// Gives a connection of this address a place, unless it has one or is known already; `false` when the address has as
    /// many as it may.
    pub fn enter(self: &Arc<Self>, ip: IpAddr, conn: &Arc<Conn>) -> bool {
        let Scope::Address(ip) = Scope::address(ip) else {
            return true;
        };
        let entered = conn.wait_with(|| {
            let mut count = self.by_address.entry(ip).or_insert(0);
            if *count >= self.per_address {
                return None;
            }
            *count += 1;
            drop(count);
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
}
