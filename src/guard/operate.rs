//! What operators do: look at bans, sockets and the queue of questions, set and lift bans, close connections, end logins, stop
//! the queue and try again what it gave up.
//!
//! `roomcast ban`, `roomcast sessions`, `roomcast queue` and `/admin` are four faces of this. What nodes must do is carried out
//! through the control stream, by every node alike. Every change is noted in the audit stream with the one who made it.

mod letters;
mod order;
mod queue;
mod sessions;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

pub use letters::{DeadList, Letters, QueueError, Retried};
pub use order::{BadOrder, BanOrder, is_forever, read_actor, read_scope};
pub use queue::{Next, Open, QueueStats, RoomLoad, UserLoad, WorkerLoad};
pub use sessions::{Kicked, Session, SessionFilter, SessionList, Target};

use crate::model::{Ban, Scope, UnixMs};
use crate::redis::{Audit, Redis, RedisError, Term};

/// Acts of the audit stream that belong to the report about a scope.
const REPORT_AUDITS: usize = 10;

/// The operations, over one Redis.
#[derive(Clone)]
pub struct Operate {
    redis: Redis,
    allow: Vec<IpNet>,
}

/// A kind of scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Addresses and networks.
    Ip,
    /// Users.
    User,
    /// Login sessions.
    Session,
}

impl Kind {
    fn has(self, scope: &Scope) -> bool {
        match self {
            Self::Ip => scope.is_address(),
            Self::User => matches!(scope, Scope::User(_)),
            Self::Session => matches!(scope, Scope::Session(_)),
        }
    }
}

/// Some of the bans in force.
#[derive(Debug, Serialize)]
pub struct BanList {
    /// The newest first.
    pub bans: Vec<Ban>,
    /// How many there are in all.
    pub total: usize,
    /// The server's time, Unix ms.
    pub now: UnixMs,
    /// What else there is to know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A ban that was set.
#[derive(Debug, Serialize)]
pub struct BanSet {
    /// The ban.
    pub ban: Ban,
    /// What the operator may not have meant.
    pub warnings: Vec<String>,
}

/// All that is known of a scope.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The scope.
    pub scope: Scope,
    /// Its ban, where one is in force.
    pub ban: Option<Ban>,
    /// For an address: bans of networks that it is in.
    pub networks: Vec<Ban>,
    /// How often it was banned by a rule of late: the next block takes the step after it.
    pub level: u32,
    /// Refused acts within the window of `GUARD_STRIKES_WINDOW`.
    pub strikes: u64,
    /// Sockets that count against its limit.
    pub counted: u64,
    /// Sockets that are connected.
    pub sockets: usize,
    /// The newest acts on it, the newest first.
    pub audit: Vec<Audit>,
    /// The server's time, Unix ms.
    pub now: UnixMs,
}

impl Operate {
    /// The operations; `allow` is `GUARD_ALLOW` as far as it is known here.
    pub fn new(redis: Redis, allow: Vec<IpNet>) -> Self {
        Self { redis, allow }
    }

    /// The bans in force: of one kind, or all that keep an address out; the newest `limit` of them.
    pub async fn bans(&self, kind: Option<Kind>, ip: Option<IpAddr>, limit: usize) -> Result<BanList, RedisError> {
        let now = self.redis.server_time().await?;
        let listed = self.redis.listed_bans().await?;
        let wanted =
            |scope: &Scope| kind.is_none_or(|kind| kind.has(scope)) && ip.is_none_or(|ip| scope.has_address(ip));
        let mut scopes: Vec<Scope> = listed
            .into_iter()
            .map(|(scope, _)| scope)
            .filter(|scope| wanted(scope))
            .collect();
        // The ban at its scope is the one that counts: it may not be listed yet.
        if let Some(own) = ip.map(Scope::address)
            && !scopes.contains(&own)
            && wanted(&own)
        {
            scopes.push(own);
        }
        let mut bans = self.redis.bans_at(&scopes, now).await?;
        bans.sort_by(|a, b| {
            b.since
                .cmp(&a.since)
                .then_with(|| a.scope.to_string().cmp(&b.scope.to_string()))
        });
        let total = bans.len();
        bans.truncate(limit);
        let warnings = ip
            .and_then(|ip| self.allowed(&Scope::address(ip)))
            .into_iter()
            .collect();
        Ok(BanList {
            bans,
            total,
            now,
            warnings,
        })
    }

    /// All that is known of a scope.
    pub async fn report(&self, scope: &Scope) -> Result<Report, RedisError> {
        let now = self.redis.server_time().await?;
        let state = self.redis.scope_state(scope, now).await?;
        let networks = match scope {
            Scope::Address(ip) => {
                let mut holding = self.bans(Some(Kind::Ip), Some(*ip), usize::MAX).await?.bans;
                holding.retain(|ban| ban.scope != *scope);
                holding
            }
            _ => Vec::new(),
        };
        Ok(Report {
            scope: scope.clone(),
            ban: self.redis.bans_at(std::slice::from_ref(scope), now).await?.pop(),
            networks,
            level: state.level,
            strikes: state.strikes,
            counted: state.leases,
            sockets: self.count(scope).await?,
            audit: self.redis.audits(Some(scope), REPORT_AUDITS).await?,
            now,
        })
    }

    /// Bans a scope; a ban in force is replaced. Repeating it is harmless, and needed where this fails half-way.
    pub async fn ban(&self, order: &BanOrder) -> Result<BanSet, RedisError> {
        let term = Term::For(order.length);
        let (ban, _) = self.redis.set_ban(&order.scope, &order.reason, &order.by, term).await?;
        self.redis.announce_ban(&ban).await?;
        let warnings = self
            .allowed(&order.scope)
            .into_iter()
            .chain(order::hits_ours(&order.scope));
        Ok(BanSet {
            warnings: warnings.collect(),
            ban,
        })
    }

    /// Ends the ban of a scope and forgets its ladder and strikes; tells whether one was in force. Nodes hear of it in any
    /// case: one may still hold a ban that Redis has lost.
    pub async fn unban(&self, scope: &Scope, by: &str) -> Result<bool, RedisError> {
        let was = self.redis.clear_ban(scope).await?;
        self.redis.announce_unban(scope, by).await?;
        Ok(was)
    }

    /// The newest acts, the newest first.
    pub async fn audits(&self, limit: usize) -> Result<Vec<Audit>, RedisError> {
        self.redis.audits(None, limit).await
    }

    /// What `GUARD_ALLOW` means for a scope.
    fn allowed(&self, scope: &Scope) -> Option<String> {
        let net = order::network(scope)?;
        let exempt = self
            .allow
            .iter()
            .find(|allowed| allowed.contains(&net) || net.contains(*allowed))?;
        Some(format!(
            "GUARD_ALLOW has {exempt}: addresses of that network come in all the same, and stay connected"
        ))
    }
}
