//! Blocks, strikes and token requests: the counters and marks the guard decides by.

use std::net::IpAddr;
use std::time::Duration;

use fred::prelude::*;

use super::keys;
use super::script::call;
use super::{Redis, RedisError};
use crate::model::Scope;

/// A block in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Why.
    pub reason: String,
    /// How long it still lasts.
    pub left: Duration,
}

impl Redis {
    /// Blocks a scope; returns the block and whether it is new.
    pub async fn block(&self, scope: &Scope, reason: &str, duration: Duration) -> Result<(Block, bool), RedisError> {
        let args = vec![reason.into(), ms(duration).into()];
        let (new, reason, left): (i64, String, i64) =
            call(&self.scripts.block, self.any()?, vec![keys::ban(scope)], args).await?;
        Ok((
            Block {
                reason,
                left: from_ms(left),
            },
            new == 1,
        ))
    }

    /// The block of a scope, if there is one.
    pub async fn blocked(&self, scope: &Scope) -> Result<Option<Block>, RedisError> {
        let pipeline = self.any()?.pipeline();
        let () = pipeline.get(keys::ban(scope)).await?;
        let () = pipeline.pttl(keys::ban(scope)).await?;
        let (reason, left): (Option<String>, i64) = pipeline.all().await?;
        Ok(reason.filter(|_| left != -2).map(|reason| Block {
            reason,
            left: from_ms(left),
        }))
    }

    /// Counts refused acts; returns the acts within `window`.
    pub async fn strike(&self, scope: &Scope, window: Duration, count: u32) -> Result<u64, RedisError> {
        call(
            &self.scripts.strike,
            self.any()?,
            vec![keys::strikes(scope)],
            vec![ms(window).into(), i64::from(count).into()],
        )
        .await
    }

    /// Counts a token request of an address; returns the requests within the window and what is left of it.
    pub async fn count_token_request(&self, ip: IpAddr, window: Duration) -> Result<(u64, Duration), RedisError> {
        let key = keys::token_requests(&ip.to_string());
        let (count, left): (u64, i64) = call(
            &self.scripts.token_requests,
            self.any()?,
            vec![key],
            vec![ms(window).into()],
        )
        .await?;
        Ok((count, from_ms(left)))
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn from_ms(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
