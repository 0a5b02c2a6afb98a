//! The local copy of the bans in force: a blocked address costs no call of Redis.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use futures::StreamExt;

use crate::model::{Ban, Identity, Origin, Scope, UnixMs, unix_ms};
use crate::redis::{Redis, RedisError, Replid};

/// Bans kept here, some 25 MB of them; what does not fit is still refused by `admit`.
const BANS_MAX: usize = 100_000;
/// Banned networks: each handshake looks at all of them.
const RANGES_MAX: usize = 1000;
/// Bans waiting for Redis to come back; more are this node's alone.
const PENDING_MAX: usize = 1000;
/// Bans written to Redis at once after it lost them.
const RESTORES_PARALLEL: usize = 64;

/// Bans by scope.
#[derive(Debug, Default)]
pub struct Bans {
    by_scope: DashMap<Scope, Ban>,
    ranges: ArcSwap<Vec<Ban>>,
    /// How far the server's clock is ahead of this one, ms.
    ahead: AtomicI64,
    /// Bans that Redis, or the other nodes, do not know of yet.
    pending: Mutex<Vec<Ban>>,
    /// The histories of the servers at the last comparison.
    histories: Mutex<HashSet<Replid>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bans {
    /// The server's time as this node knows it, Unix ms.
    fn now(&self) -> UnixMs {
        unix_ms().saturating_add_signed(self.ahead.load(Ordering::Relaxed))
    }

    /// How long a ban still lasts.
    pub fn left(&self, ban: &Ban) -> Duration {
        ban.left_at(self.now())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_scope.len() + self.ranges.load().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ban of an address, or of a network that it is in.
    pub fn of_address(&self, ip: IpAddr) -> Option<Ban> {
        let now = self.now();
        let own = self.by_scope.get(&Scope::address(ip)).map(|ban| ban.clone());
        own.filter(|ban| ban.until > now).or_else(|| {
            let ranges = self.ranges.load();
            let mut holding = ranges.iter().filter(|ban| ban.until > now && ban.scope.has_address(ip));
            holding.next().cloned()
        })
    }

    /// The ban of a user or a login.
    pub fn of_identity(&self, identity: &Identity) -> Option<Ban> {
        let now = self.now();
        let session = identity.session.clone().map(Scope::Session);
        let scopes = std::iter::once(Scope::User(identity.user.clone())).chain(session);
        scopes
            .filter_map(|scope| self.by_scope.get(&scope).map(|ban| ban.clone()))
            .find(|ban| ban.until > now)
    }

    /// Adds a ban, or replaces the one of its scope.
    pub fn insert(&self, ban: Ban) {
        if let Scope::Range(_) = ban.scope {
            self.ranges.rcu(|ranges| {
                let others = ranges.iter().filter(|known| known.scope != ban.scope);
                let mut ranges: Vec<Ban> = others.take(RANGES_MAX - 1).cloned().collect();
                ranges.push(ban.clone());
                ranges
            });
        } else if self.by_scope.len() < BANS_MAX || self.by_scope.contains_key(&ban.scope) {
            self.by_scope.insert(ban.scope.clone(), ban);
        }
    }

    /// A ban has ended before its time.
    pub fn remove(&self, scope: &Scope) {
        if let Scope::Range(_) = scope {
            self.ranges.rcu(|ranges| {
                ranges
                    .iter()
                    .filter(|ban| ban.scope != *scope)
                    .cloned()
                    .collect::<Vec<_>>()
            });
        } else {
            self.by_scope.remove(scope);
        }
        lock(&self.pending).retain(|ban| ban.scope != *scope);
    }

    /// Adds a ban that could not be written; the one in force, where there is one.
    pub fn insert_pending(&self, scope: &Scope, reason: &str, actor: &str, length: Duration) -> Ban {
        let now = self.now();
        let known = self.by_scope.get(scope).map(|ban| ban.clone());
        if let Some(ban) = known.filter(|ban| ban.until > now) {
            return ban;
        }
        let ban = Ban {
            scope: scope.clone(),
            reason: reason.to_owned(),
            origin: Origin::Auto,
            actor: actor.to_owned(),
            since: now,
            until: now.saturating_add(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)),
            level: 1,
        };
        self.insert(ban.clone());
        self.add_pending(ban.clone());
        ban
    }

    /// Notes a ban that is still to be announced.
    pub fn add_pending(&self, ban: Ban) {
        let mut pending = lock(&self.pending);
        if pending.len() < PENDING_MAX {
            pending.push(ban);
        }
    }

    /// Forgets bans that are over.
    pub fn sweep(&self) {
        let now = self.now();
        self.by_scope.retain(|_, ban| ban.until > now);
        if self.ranges.load().iter().any(|ban| ban.until <= now) {
            self.ranges
                .rcu(|ranges| ranges.iter().filter(|ban| ban.until > now).cloned().collect::<Vec<_>>());
        }
        lock(&self.pending).retain(|ban| ban.until > now);
    }

    fn all(&self) -> Vec<Ban> {
        let ranges = self.ranges.load();
        let by_scope = self.by_scope.iter().map(|ban| ban.clone());
        by_scope.chain(ranges.iter().cloned()).collect()
    }

    fn until(&self, scope: &Scope) -> Option<UnixMs> {
        if let Scope::Range(_) = scope {
            let ranges = self.ranges.load();
            return ranges.iter().find(|ban| ban.scope == *scope).map(|ban| ban.until);
        }
        self.by_scope.get(scope).map(|ban| ban.until)
    }

    /// Takes over what Redis lists, and writes what Redis lost in a restart or failover; then announces what waits.
    ///
    /// A ban that is here and not listed was lifted, unless the servers' histories have changed since the last time: then it
    /// may have been lost with a server.
    pub async fn resync(&self, redis: &Redis) -> Result<(), RedisError> {
        let histories = redis.histories().await?;
        let index = redis.ban_index().await?;
        let ahead = i128::from(index.now) - i128::from(unix_ms());
        self.ahead
            .store(i64::try_from(ahead).unwrap_or_default(), Ordering::Relaxed);

        let listed: HashSet<&Scope> = index.bans.iter().map(|(scope, _)| scope).collect();
        let news: Vec<Scope> = index
            .bans
            .iter()
            .filter(|(scope, until)| self.until(scope) != Some(*until))
            .map(|(scope, _)| scope.clone())
            .collect();
        for ban in redis.bans_of(&news).await? {
            self.insert(ban);
        }
        let known = lock(&self.histories).clone();
        if known.is_empty() || known == histories {
            let waiting: HashSet<Scope> = lock(&self.pending).iter().map(|ban| ban.scope.clone()).collect();
            for ban in self.all() {
                if !listed.contains(&ban.scope) && !waiting.contains(&ban.scope) {
                    self.remove(&ban.scope);
                }
            }
        } else {
            self.restore(redis, self.all()).await?;
        }
        *lock(&self.histories) = histories;
        self.announce_pending(redis).await
    }

    /// Writes bans that may have been lost, and lists them.
    async fn restore(&self, redis: &Redis, bans: Vec<Ban>) -> Result<(), RedisError> {
        let written = futures::stream::iter(bans)
            .map(|ban| async move {
                let missing = redis.restore_ban(&ban).await?;
                redis.list_ban(&ban).await?;
                Ok(u64::from(missing))
            })
            .buffer_unordered(RESTORES_PARALLEL)
            .collect::<Vec<Result<u64, RedisError>>>()
            .await;
        let restored: u64 = written.into_iter().sum::<Result<u64, RedisError>>()?;
        if restored > 0 {
            tracing::warn!(restored, "Redis had lost bans: written again from this node's copy");
        }
        Ok(())
    }

    async fn announce_pending(&self, redis: &Redis) -> Result<(), RedisError> {
        let waiting = lock(&self.pending).clone();
        for ban in waiting {
            redis.restore_ban(&ban).await?;
            redis.announce_ban(&ban).await?;
            lock(&self.pending).retain(|known| *known != ban);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UserId;

    fn ban(scope: &str, seconds: u64) -> Ban {
        Ban {
            scope: scope.parse().unwrap(),
            reason: "test".into(),
            origin: Origin::Admin,
            actor: "cli".into(),
            since: unix_ms(),
            until: unix_ms() + seconds * 1000,
            level: 0,
        }
    }

    #[test]
    fn a_ban_holds_for_its_scope_until_it_ends_or_is_lifted() {
        let bans = Bans::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for scope in [
            "ip:192.0.2.7",
            "ip:198.51.100.0/24",
            "ip:2001:db8::/32",
            "user:p1",
            "session:s1",
        ] {
            bans.insert(ban(scope, 60));
        }
        bans.insert(ban("ip:192.0.2.8", 0));
        assert!(bans.of_address(ip("192.0.2.7")).is_some());
        assert!(bans.of_address(ip("192.0.2.8")).is_none(), "over");
        assert!(bans.of_address(ip("198.51.100.77")).is_some());
        assert!(bans.of_address(ip("2001:db8:5::1")).is_some());
        assert!(bans.of_address(ip("192.0.2.9")).is_none());
        let identity = |user: &str, session: Option<&str>| Identity {
            user: UserId::new(user).unwrap(),
            username: user.to_owned(),
            session: session.map(str::to_owned),
            expires_at: None,
            issued_at: None,
        };
        assert!(bans.of_identity(&identity("p1", None)).is_some());
        assert!(bans.of_identity(&identity("p2", Some("s1"))).is_some());
        assert!(bans.of_identity(&identity("p2", Some("s2"))).is_none());
        bans.sweep();
        assert_eq!(bans.len(), 5);
        for scope in ["ip:198.51.100.0/24", "user:p1"] {
            bans.remove(&scope.parse().unwrap());
        }
        assert!(bans.of_address(ip("198.51.100.77")).is_none());
        assert!(bans.of_identity(&identity("p1", None)).is_none());
    }

    #[test]
    fn a_hundred_thousand_addresses_are_all_that_is_kept() {
        let bans = Bans::default();
        for n in 0..(BANS_MAX as u32 + 1000) {
            bans.insert(ban(&format!("ip:{}", std::net::Ipv4Addr::from(0x0a00_0000 + n)), 60));
        }
        for n in 0..(RANGES_MAX as u32 + 10) {
            bans.insert(ban(
                &format!("ip:{}/28", std::net::Ipv4Addr::from(0x0b00_0000 + n * 16)),
                60,
            ));
        }
        assert_eq!(bans.len(), BANS_MAX + RANGES_MAX);
    }

    #[test]
    fn a_ban_without_redis_takes_the_one_in_force() {
        let bans = Bans::default();
        let scope: Scope = "user:p1".parse().unwrap();
        let first = bans.insert_pending(&scope, "forged_room", "node", Duration::from_secs(60));
        let again = bans.insert_pending(&scope, "strikes", "node", Duration::from_secs(600));
        assert_eq!(first, again);
        assert_eq!(lock(&bans.pending).len(), 1);
    }
}
