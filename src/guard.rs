//! Who is kept out, and what nobody may do too often.
//!
//! What decides before a connection costs anything is local: a copy of the bans in force and a rate of handshakes per
//! address. What must hold over all nodes is decided by one script call at a handshake (`admit`), and by one for an event
//! that is costly. Messages and other events are limited locally. While Redis is away the local part goes on, and nobody is
//! banned for the outage.

mod bans;
pub mod operate;
mod rates;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipnet::IpNet;

pub use bans::Bans;
pub use rates::{EventRate, Weight};

use self::rates::Rates;
use crate::config::{Config, Rate, Rule, TokenScope};
use crate::model::{Ban, ClientAddress, Identity, Scope, UserId};
use crate::redis::{Admission, AdmitLimits, Redis, RedisError, Sanction, Term};
use crate::telemetry::Metrics;

/// A socket whose events went this often beyond their rate floods: it has had a second of burst and a reason each time.
const FLOOD_AFTER: u32 = 1000;
/// When to come back where a scope has as many sockets as it may.
const FULL_RETRY: Duration = Duration::from_secs(10);

/// The decisions, and the settings they follow.
pub struct Guard {
    redis: Redis,
    metrics: Arc<Metrics>,
    bans: Bans,
    rates: Rates,
    /// This node, as the actor of its bans.
    actor: String,
    allow: Vec<IpNet>,
    shadow: Vec<Rule>,
    ladder: Vec<Duration>,
    strikes: u32,
    strikes_window: Duration,
    token_requests: u32,
    token_window: Duration,
    token_scope: TokenScope,
    handshakes: Rate,
    costly: Rate,
    messages: Rate,
    sockets_per_address: u32,
    sockets_per_user: u32,
    /// Calls of Redis that failed in a row.
    failures: AtomicU64,
}

/// Whether a socket may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It may.
    Admitted,
    /// Its scope is banned, for so long.
    Banned(Duration),
    /// It, or its neighbours, come too often: it may try again after this time.
    Limited(Rule, Duration),
}

/// Whether a token request may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenRequest {
    /// It may.
    Allowed,
    /// It was one too many: the scope is blocked, for so long.
    Blocked(Duration),
}

impl Guard {
    /// The guard with the settings of `config`, on the node `actor`.
    pub fn new(config: &Config, redis: Redis, metrics: Arc<Metrics>, actor: String) -> Self {
        Self {
            bans: Bans::default(),
            rates: Rates::new(config),
            redis,
            metrics,
            actor,
            allow: config.guard_allow.to_vec(),
            shadow: config.guard_shadow.to_vec(),
            ladder: config.guard_block.iter().map(|step| **step).collect(),
            strikes: config.guard_strikes,
            strikes_window: *config.guard_strikes_window,
            token_requests: config.guard_token_requests,
            token_window: *config.guard_token_requests_window,
            token_scope: config.guard_token_requests_scope,
            handshakes: config.guard_handshakes,
            costly: config.guard_costly,
            messages: config.guard_messages,
            sockets_per_address: config.guard_sockets_per_address,
            sockets_per_user: config.guard_sockets_per_user,
            failures: AtomicU64::new(0),
        }
    }

    /// The bans in force, as far as this node knows.
    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// How long a first block lasts.
    pub fn first_block(&self) -> Duration {
        self.ladder.first().copied().unwrap_or_default()
    }

    /// Whether address limits and blocks do not hold for this client: it is allow-listed, or an undeclared proxy, whose
    /// block would hit everybody behind it.
    pub fn is_exempt(&self, address: ClientAddress) -> bool {
        address.undeclared_proxy || self.is_allowed(address.ip)
    }

    /// Whether this address is allow-listed.
    pub fn is_allowed(&self, ip: IpAddr) -> bool {
        self.allow.iter().any(|net| net.contains(&ip))
    }

    /// Whether a rule is only watched; what it would have done is counted and logged.
    pub fn watches(&self, rule: Rule, whom: &dyn std::fmt::Display) -> bool {
        let watched = self.shadow.contains(&rule);
        if watched {
            self.metrics.shadowed_total.inc([rule.as_str()]);
            tracing::info!(rule = rule.as_str(), %whom, "shadowed: not enforced");
        }
        watched
    }

    /// Before the upgrade, without asking anybody: whether a handshake from this address may go on.
    pub fn screen(&self, address: ClientAddress) -> Entry {
        if self.is_exempt(address) {
            return Entry::Admitted;
        }
        if let Some(ban) = self.bans.of_address(address.ip) {
            return Entry::Banned(self.bans.left(&ban));
        }
        match self.rates.handshake(address.ip) {
            Some(wait) if !self.watches(Rule::Handshakes, &address.ip) => Entry::Limited(Rule::Handshakes, wait),
            _ => Entry::Admitted,
        }
    }

    /// Lets a socket of an address in: its ban, its number of sockets and its rate of handshakes, over all nodes.
    pub async fn admit_address(&self, address: ClientAddress, socket: &str) -> Result<Entry, RedisError> {
        if self.is_exempt(address) {
            return Ok(Entry::Admitted);
        }
        let limits = AdmitLimits {
            sockets: Some(self.sockets_per_address),
            watch_sockets: self.shadow.contains(&Rule::SocketsPerAddress),
            handshakes: Some(self.handshakes),
            watch_handshakes: self.shadow.contains(&Rule::Handshakes),
        };
        self.admit(&Scope::address(address.ip), socket, limits, Rule::SocketsPerAddress)
            .await
    }

    /// Lets a socket of a verified user in: the user's ban and number of sockets, over all nodes.
    pub async fn admit_user(&self, identity: &Identity, socket: &str) -> Result<Entry, RedisError> {
        if let Some(ban) = self.bans.of_identity(identity) {
            return Ok(Entry::Banned(self.bans.left(&ban)));
        }
        let limits = AdmitLimits {
            sockets: Some(self.sockets_per_user),
            watch_sockets: self.shadow.contains(&Rule::SocketsPerUser),
            ..AdmitLimits::default()
        };
        let scope = Scope::User(identity.user.clone());
        self.admit(&scope, socket, limits, Rule::SocketsPerUser).await
    }

    async fn admit(&self, scope: &Scope, socket: &str, limits: AdmitLimits, cap: Rule) -> Result<Entry, RedisError> {
        let admission = self.note(self.redis.admit(scope, socket, limits).await)?;
        Ok(match admission {
            Admission::Admitted {
                over_sockets,
                over_handshakes,
            } => {
                for (over, rule) in [(over_sockets, cap), (over_handshakes, Rule::Handshakes)] {
                    if over {
                        self.watches(rule, scope);
                    }
                }
                Entry::Admitted
            }
            Admission::Banned(ban) => {
                let left = self.bans.left(&ban);
                self.bans.insert(ban);
                Entry::Banned(left)
            }
            Admission::TooManySockets => Entry::Limited(cap, FULL_RETRY),
            Admission::TooFast(wait) => Entry::Limited(Rule::Handshakes, wait),
        })
    }

    /// The leases of a socket: what admitted it, to be renewed and given back.
    pub fn leases(&self, address: ClientAddress, user: Option<&UserId>, socket: &str) -> Vec<(Scope, String)> {
        let address = (!self.is_exempt(address)).then(|| Scope::address(address.ip));
        let user = user.map(|user| Scope::User(user.clone()));
        let scopes = address.into_iter().chain(user);
        scopes.map(|scope| (scope, socket.to_owned())).collect()
    }

    /// The ban that holds for a connected socket, as far as this node knows.
    pub fn ban_of(&self, address: ClientAddress, identity: &Identity) -> Option<Ban> {
        let of_address = || {
            let known = self.bans.of_address(address.ip);
            known.filter(|_| !self.is_exempt(address))
        };
        self.bans.of_identity(identity).or_else(of_address)
    }

    /// Whether the login was ended: its session, or its user after the access token was issued.
    pub async fn is_revoked(&self, identity: &Identity) -> Result<bool, RedisError> {
        self.redis.is_revoked(identity).await
    }

    /// Blocks an address, unless it is exempt; for how long.
    pub async fn block_address(&self, address: ClientAddress, rule: Rule) -> Option<Duration> {
        if address.undeclared_proxy {
            tracing::warn!(
                ip = %address.ip, rule = rule.as_str(),
                "not blocked: this private peer sends X-Forwarded-For and TRUSTED_PROXIES is not set; set it, or every client behind the proxy counts as one"
            );
            return None;
        }
        if self.is_exempt(address) {
            return None;
        }
        self.block(&Scope::address(address.ip), rule).await
    }

    /// Blocks a scope by the ladder and cuts its sockets on every node; for how long.
    ///
    /// Without Redis it is blocked here, by the ladder's first step, and everywhere as soon as Redis is back.
    pub async fn block(&self, scope: &Scope, rule: Rule) -> Option<Duration> {
        if self.watches(rule, scope) {
            return None;
        }
        let term = Term::Ladder(&self.ladder);
        let set = self.redis.set_ban(scope, rule.as_str(), &self.actor, term).await;
        let ban = match self.note(set) {
            Ok((ban, false)) => ban,
            Ok((ban, true)) => {
                self.banned(&ban, rule).await;
                ban
            }
            Err(error) => {
                tracing::warn!(%scope, rule = rule.as_str(), %error, "blocked on this node only, until Redis is back");
                self.metrics.blocks_total.inc([rule.as_str()]);
                self.bans
                    .insert_pending(scope, rule.as_str(), &self.actor, self.first_block())
            }
        };
        Some(self.bans.left(&ban))
    }

    /// Makes a new ban known.
    async fn banned(&self, ban: &Ban, rule: Rule) {
        self.metrics.blocks_total.inc([rule.as_str()]);
        tracing::info!(scope = %ban.scope, rule = rule.as_str(), level = ban.level, "blocked");
        self.bans.insert(ban.clone());
        if let Err(error) = self.redis.announce_ban(ban).await {
            tracing::warn!(scope = %ban.scope, %error, "the block was not announced yet");
            self.bans.add_pending(ban.clone());
        }
    }

    /// Counts refused acts of a verified user; too many block the session.
    pub async fn strike(&self, identity: &Identity, count: u32) {
        let scope = Scope::of(identity);
        let rule = Rule::Strikes;
        let sanction = self.sanction(self.strikes, rule, !self.shadow.contains(&rule));
        match self.note(self.redis.strike(&scope, self.strikes_window, count, sanction).await) {
            Ok(counted) => {
                if let Some((ban, true)) = counted.ban {
                    self.banned(&ban, rule).await;
                } else if counted.count > u64::from(self.strikes) {
                    self.watches(rule, &scope);
                }
            }
            Err(error) => tracing::warn!(%scope, %error, "strike not counted"),
        }
    }

    /// Counts a token request of an address; over the limit the address (or the session, by setting) is blocked.
    pub async fn count_token_request(
        &self,
        address: ClientAddress,
        identity: &Identity,
    ) -> Result<TokenRequest, RedisError> {
        let (rule, scope) = (Rule::TokenRequests, Scope::address(address.ip));
        let may_ban =
            self.token_scope == TokenScope::Address && !self.is_exempt(address) && !self.shadow.contains(&rule);
        let sanction = self.sanction(self.token_requests, rule, may_ban);
        let counted = self
            .redis
            .count_token_request(address.ip, self.token_window, sanction)
            .await;
        let counted = self.note(counted)?;
        if counted.count <= u64::from(self.token_requests) {
            return Ok(TokenRequest::Allowed);
        }
        let blocked = match (self.token_scope, counted.ban) {
            (TokenScope::Address, Some((ban, new))) => {
                if new {
                    self.banned(&ban, rule).await;
                }
                Some(self.bans.left(&ban))
            }
            (TokenScope::Address, None) => {
                if !self.is_exempt(address) {
                    self.watches(rule, &scope);
                }
                None
            }
            (TokenScope::Session, _) if self.is_exempt(address) => None,
            (TokenScope::Session, _) => self.block(&Scope::of(identity), rule).await,
        };
        Ok(blocked.map_or(TokenRequest::Allowed, TokenRequest::Blocked))
    }

    /// `may_ban` is false where it is only counted.
    fn sanction(&self, limit: u32, rule: Rule, may_ban: bool) -> Sanction<'_> {
        Sanction {
            limit,
            ladder: if may_ban { &self.ladder } else { &[] },
            reason: rule.as_str(),
            actor: &self.actor,
        }
    }

    /// A rate for the events of one socket.
    pub fn event_rate(&self) -> EventRate {
        self.rates.of_socket()
    }

    /// Takes an event from its socket's rate, and a message from its user's; the time to wait where it is beyond.
    pub fn take_event(&self, rate: &EventRate, user: &UserId, weight: Weight) -> Option<Duration> {
        let over = |rule, wait: Option<Duration>| wait.filter(|_| !self.watches(rule, user));
        if let Some(wait) = over(Rule::Events, self.rates.event(rate, weight)) {
            return Some(wait);
        }
        if weight.message {
            return over(Rule::Messages, self.rates.message(user));
        }
        None
    }

    /// Whether a socket that went beyond its rate so often is to be cut, and its session blocked.
    pub fn is_flood(&self, refused: u32) -> bool {
        // Once, not at every further event.
        refused == FLOOD_AFTER
    }

    /// Takes a costly event from its user's rate, over all nodes; the time to wait where it is beyond.
    pub async fn take_costly(&self, user: &UserId) -> Result<Option<Duration>, RedisError> {
        let scope = Scope::User(user.clone());
        let wait = self.note(self.redis.take(&scope, "costly", self.costly, 1).await)?;
        Ok(wait.filter(|_| !self.watches(Rule::Costly, user)))
    }

    /// Whether the messages of a user here within some time are so many that the other nodes should know: an eighth of what
    /// the user may send. Ordinary people never cost a call.
    pub fn is_worth_settling(&self, count: u32, within: Duration) -> bool {
        self.messages.interval * count >= within / 8
    }

    /// Tells the other nodes how many messages of a user were taken here, and hears whether all together are too many.
    pub async fn settle_messages(&self, user: &UserId, count: u32) -> Result<(), RedisError> {
        let scope = Scope::User(user.clone());
        let wait = self.redis.debit(&scope, "messages", self.messages, count).await?;
        if let Some(wait) = wait {
            self.rates.hold_messages(user, wait);
        }
        Ok(())
    }

    /// Periodic work: forgets what has ended.
    pub fn sweep(&self) {
        self.bans.sweep();
        self.rates.sweep();
        self.metrics
            .bans
            .set(i64::try_from(self.bans.len()).unwrap_or(i64::MAX));
    }

    /// Brings the local copy in line with Redis, and Redis with what it lost and this node still knows.
    pub async fn resync(&self) -> Result<(), RedisError> {
        let result = self.bans.resync(&self.redis).await;
        self.note(result)
    }

    /// Notes how a call of Redis went: a guard that cannot ask says so, once.
    fn note<T>(&self, result: Result<T, RedisError>) -> Result<T, RedisError> {
        let failed = result.is_err();
        let before = if failed {
            self.failures.fetch_add(1, Ordering::Relaxed)
        } else {
            self.failures.swap(0, Ordering::Relaxed)
        };
        if failed && before == 0 {
            self.metrics.guard_degraded.set(1);
            tracing::warn!("Redis does not answer: limits and bans known here hold, handshakes are refused for now");
        } else if !failed && before > 0 {
            self.metrics.guard_degraded.set(0);
            tracing::info!("Redis answers again: limits and bans hold over all nodes");
        }
        result
    }
}
