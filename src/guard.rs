//! Who is kept out: blocks by scope, strikes, and the limit of token requests.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::config::{Config, TokenScope};
use crate::model::{ClientAddress, Identity, Scope};
use crate::redis::{Act, Block, Redis, RedisError};
use crate::telemetry::Metrics;

/// The decisions, and the settings they follow.
pub struct Guard {
    redis: Redis,
    metrics: Arc<Metrics>,
    allow: Vec<IpNet>,
    block: Duration,
    strikes: u64,
    token_requests: u64,
    token_window: Duration,
    token_scope: TokenScope,
}

/// Whether a token request may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRequest {
    /// It may.
    Allowed,
    /// It was one too many: the scope is blocked.
    Blocked,
}

impl Guard {
    /// The guard with the settings of `config`.
    pub fn new(config: &Config, redis: Redis, metrics: Arc<Metrics>) -> Self {
        Self {
            redis,
            metrics,
            allow: config.guard_allow.to_vec(),
            block: *config.guard_block,
            strikes: u64::from(config.guard_strikes),
            token_requests: u64::from(config.guard_token_requests),
            token_window: *config.guard_token_requests_window,
            token_scope: config.guard_token_requests_scope,
        }
    }

    /// How long a block lasts.
    pub fn block_duration(&self) -> Duration {
        self.block
    }

    /// Whether address limits and blocks do not hold for this client: it is allow-listed, or an undeclared proxy, whose
    /// block would hit everybody behind it.
    pub fn is_exempt(&self, address: ClientAddress) -> bool {
        address.undeclared_proxy || self.allow.iter().any(|net| net.contains(&address.ip))
    }

    /// The block of a client's address.
    pub async fn blocked_address(&self, address: ClientAddress) -> Result<Option<Block>, RedisError> {
        if self.is_exempt(address) {
            return Ok(None);
        }
        self.redis.blocked(&Scope::address(address.ip)).await
    }

    /// The block of a verified user or session.
    pub async fn blocked_identity(&self, identity: &Identity) -> Result<Option<Block>, RedisError> {
        if let Some(block) = self.redis.blocked(&Scope::User(identity.user.clone())).await? {
            return Ok(Some(block));
        }
        match &identity.session {
            Some(sid) => self.redis.blocked(&Scope::Session(sid.clone())).await,
            None => Ok(None),
        }
    }

    /// Whether any block or revocation holds for a connected socket; an outage of Redis is none.
    pub async fn is_blocked_now(&self, address: ClientAddress, identity: &Identity) -> bool {
        let address = self.blocked_address(address);
        let (address, identity, revoked) =
            tokio::join!(address, self.blocked_identity(identity), self.is_revoked(identity));
        address.is_ok_and(|block| block.is_some())
            || identity.is_ok_and(|block| block.is_some())
            || revoked.unwrap_or(false)
    }

    /// Whether the login was ended: its session, or its user after the access token was issued.
    pub async fn is_revoked(&self, identity: &Identity) -> Result<bool, RedisError> {
        self.redis.is_revoked(identity).await
    }

    /// Blocks an address, unless it is exempt.
    pub async fn block_address(&self, address: ClientAddress, reason: &'static str) {
        if address.undeclared_proxy {
            tracing::warn!(
                ip = %address.ip, reason,
                "not blocked: this private peer sends X-Forwarded-For and TRUSTED_PROXIES is not set; set it, or every client behind the proxy counts as one"
            );
            return;
        }
        if !self.is_exempt(address) {
            self.block(&Scope::address(address.ip), reason).await;
        }
    }

    /// Blocks a scope and cuts its sockets on every node. An outage of Redis blocks nobody.
    pub async fn block(&self, scope: &Scope, reason: &'static str) {
        match self.redis.block(scope, reason, self.block).await {
            Ok((_, false)) => {}
            Ok((_, true)) => {
                self.metrics.blocks_total.inc([reason]);
                tracing::info!(%scope, reason, "blocked");
                let blocked_for_ms = u64::try_from(self.block.as_millis()).ok();
                let act = Act::Cut {
                    scope: scope.to_string(),
                    code: reason.to_owned(),
                    blocked_for_ms,
                };
                if let Err(error) = self.redis.publish_act(&act).await {
                    tracing::warn!(%scope, %error, "the block was not announced");
                }
            }
            Err(error) => tracing::warn!(%scope, reason, %error, "not blocked"),
        }
    }

    /// Counts refused acts of a verified user; too many block the session.
    pub async fn strike(&self, identity: &Identity, count: u32) {
        let scope = Scope::of(identity);
        match self.redis.strike(&scope, self.block, count).await {
            Ok(strikes) if strikes > self.strikes => self.block(&scope, "strikes").await,
            Ok(_) => {}
            Err(error) => tracing::warn!(%scope, %error, "strike not counted"),
        }
    }

    /// Counts a token request of an address; over the limit the address (or the session, by setting) is blocked.
    pub async fn count_token_request(
        &self,
        address: ClientAddress,
        identity: &Identity,
    ) -> Result<TokenRequest, RedisError> {
        let (count, _left) = self.redis.count_token_request(address.ip, self.token_window).await?;
        if count <= self.token_requests || self.is_exempt(address) {
            return Ok(TokenRequest::Allowed);
        }
        match self.token_scope {
            TokenScope::Address => self.block_address(address, "token_requests").await,
            TokenScope::Session => self.block(&Scope::of(identity), "token_requests").await,
        }
        Ok(TokenRequest::Blocked)
    }
}
