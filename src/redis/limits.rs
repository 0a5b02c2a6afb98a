//! What is counted in Redis, over all nodes: handshakes and sockets, strikes, token requests, and rates.

use std::net::IpAddr;
use std::time::Duration;

use fred::prelude::*;

use super::bans::{RawBan, ladder, read_ban};
use super::script::call;
use super::{Redis, RedisError, from_ms, keys, ms};
use crate::config::Rate;
use crate::model::{Ban, Scope, UnixMs};

/// Life of a socket's lease. Sockets of a node that crashed are given up when it is reaped; this is for what is left then.
const LEASE_TTL: Duration = Duration::from_secs(180);
/// How often leases must be renewed: twice within their life, and once more.
pub const LEASE_RENEW: Duration = Duration::from_secs(60);

/// What a socket of a scope may count on.
#[derive(Debug, Clone, Copy, Default)]
pub struct AdmitLimits {
    /// Sockets at most.
    pub sockets: Option<u32>,
    /// Whether that is only watched.
    pub watch_sockets: bool,
    /// Handshakes.
    pub handshakes: Option<Rate>,
    /// Whether those are only watched.
    pub watch_handshakes: bool,
}

/// Whether a socket is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It is; its lease must be renewed and given back.
    Admitted {
        /// Whether it would not have been, for the number of sockets.
        over_sockets: bool,
        /// Whether it would not have been, for the rate of handshakes.
        over_handshakes: bool,
    },
    /// Its scope is banned.
    Banned(Ban),
    /// Its scope has as many sockets as it may.
    TooManySockets,
    /// Handshakes come too fast; one may come after this time.
    TooFast(Duration),
}

/// By which rule a count bans.
#[derive(Debug, Clone, Copy)]
pub struct Sanction<'a> {
    /// What is let pass.
    pub limit: u32,
    /// The steps of the ladder; empty: nobody is banned, it is only counted.
    pub ladder: &'a [Duration],
    /// The rule's name.
    pub reason: &'a str,
    /// The node.
    pub actor: &'a str,
}

/// What a count has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The count within the window.
    pub count: u64,
    /// The ban of the scope, when the count is over the limit, and whether it is new.
    pub ban: Option<(Ban, bool)>,
}

impl Redis {
    /// Lets a socket of a scope in, or tells why not: one trip for its ban, its sockets and its handshakes.
    pub async fn admit(&self, scope: &Scope, socket: &str, limits: AdmitLimits) -> Result<Admission, RedisError> {
        let key_names = vec![keys::ban(scope), keys::leases(scope), keys::handshakes(scope)];
        let mut watched = String::new();
        if limits.watch_sockets {
            watched.push('c');
        }
        if limits.watch_handshakes {
            watched.push('r');
        }
        let (interval, burst) = limits.handshakes.map_or((0, 0), rate);
        let args = vec![
            socket.into(),
            ms(LEASE_TTL).into(),
            i64::from(limits.sockets.unwrap_or(0)).into(),
            interval.into(),
            burst.into(),
            watched.into(),
        ];
        let (status, wait, _now, ban, over_sockets, over_handshakes): (String, i64, UnixMs, RawBan, i64, i64) =
            call(&self.scripts.admit, self.any()?, key_names, args).await?;
        match status.as_str() {
            "ok" => Ok(Admission::Admitted {
                over_sockets: over_sockets == 1,
                over_handshakes: over_handshakes == 1,
            }),
            "banned" => read_ban(scope, ban)
                .map(Admission::Banned)
                .ok_or(RedisError::Unexpected("admit")),
            "full" => Ok(Admission::TooManySockets),
            "rate" => Ok(Admission::TooFast(from_ms(wait))),
            _ => Err(RedisError::Unexpected("admit")),
        }
    }

    /// Gives the leases of sockets back.
    pub async fn give_back(&self, leases: &[(Scope, String)]) -> Result<(), RedisError> {
        let pipeline = self.any()?.pipeline();
        for (scope, socket) in leases {
            let () = pipeline.zrem(keys::leases(scope), socket.as_str()).await?;
        }
        super::membership::run(pipeline).await
    }

    /// Renews the leases of a scope's sockets; returns how many sockets it has on all nodes.
    pub async fn renew_leases(&self, scope: &Scope, sockets: Vec<String>) -> Result<u64, RedisError> {
        let mut args: Vec<Value> = Vec::with_capacity(sockets.len() + 1);
        args.push(ms(LEASE_TTL).into());
        args.extend(sockets.into_iter().map(Value::from));
        call(&self.scripts.lease, self.any()?, vec![keys::leases(scope)], args).await
    }

    /// Counts refused acts; too many ban the scope.
    pub async fn strike(
        &self,
        scope: &Scope,
        window: Duration,
        count: u32,
        sanction: Sanction<'_>,
    ) -> Result<Counted, RedisError> {
        let key_names = vec![keys::strikes(scope), keys::ban(scope), keys::ban_level(scope)];
        let args = vec![
            ms(window).into(),
            i64::from(count).into(),
            i64::from(sanction.limit).into(),
            ladder(sanction.ladder).into(),
            sanction.reason.into(),
            sanction.actor.into(),
        ];
        let (count, new, _now, ban): (u64, i64, UnixMs, RawBan) =
            call(&self.scripts.strike, self.any()?, key_names, args).await?;
        Ok(Counted {
            count,
            ban: read_ban(scope, ban).map(|ban| (ban, new == 1)),
        })
    }

    /// Counts a token request of an address (legacy key `tokenRequests:<ip>`); one over the limit bans it.
    pub async fn count_token_request(
        &self,
        ip: IpAddr,
        window: Duration,
        sanction: Sanction<'_>,
    ) -> Result<Counted, RedisError> {
        let scope = Scope::address(ip);
        let Scope::Address(counted) = scope else {
            return Err(RedisError::Unexpected("token_requests"));
        };
        let key_names = vec![
            keys::token_requests(counted),
            keys::ban(&scope),
            keys::ban_level(&scope),
        ];
        let args = vec![
            ms(window).into(),
            i64::from(sanction.limit).into(),
            ladder(sanction.ladder).into(),
            sanction.reason.into(),
            sanction.actor.into(),
        ];
        let (count, _left, new, _now, ban): (u64, i64, i64, UnixMs, RawBan) =
            call(&self.scripts.token_requests, self.any()?, key_names, args).await?;
        Ok(Counted {
            count,
            ban: read_ban(&scope, ban).map(|ban| (ban, new == 1)),
        })
    }

    /// Takes a cost from a scope's rate `name`; the time to wait where it is beyond it.
    pub async fn take(
        &self,
        scope: &Scope,
        name: &str,
        limit: Rate,
        cost: u32,
    ) -> Result<Option<Duration>, RedisError> {
        self.take_from(scope, name, limit, cost, false).await
    }

    /// Takes what was spent already; the time to wait before the next where it was too much.
    pub async fn debit(
        &self,
        scope: &Scope,
        name: &str,
        limit: Rate,
        cost: u32,
    ) -> Result<Option<Duration>, RedisError> {
        self.take_from(scope, name, limit, cost, true).await
    }

    async fn take_from(
        &self,
        scope: &Scope,
        name: &str,
        limit: Rate,
        cost: u32,
        spent: bool,
    ) -> Result<Option<Duration>, RedisError> {
        let (interval, burst) = rate(limit);
        let args = vec![
            interval.into(),
            burst.into(),
            i64::from(cost).into(),
            if spent { "1" } else { "0" }.into(),
        ];
        let (within, wait): (i64, i64) = call(
            &self.scripts.gcra_take,
            self.any()?,
            vec![keys::rate(scope, name)],
            args,
        )
        .await?;
        Ok((within == 0).then(|| from_ms(wait)))
    }
}

/// Interval in microseconds, and burst, as scripts read them.
fn rate(rate: Rate) -> (i64, i64) {
    let interval = i64::try_from(rate.interval.as_micros()).unwrap_or(i64::MAX).max(1);
    (interval, i64::from(rate.burst))
}
