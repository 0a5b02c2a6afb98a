//! Ended logins.

use std::time::Duration;

use fred::prelude::*;

use super::{Redis, RedisError, keys, ms};
use crate::model::Scope;

impl Redis {
    /// Marks a session or user as revoked.
    pub async fn revoke(&self, scope: &Scope, duration: Duration) -> Result<(), RedisError> {
        let () = self
            .any()?
            .set(
                keys::revoked(scope),
                "1",
                Some(Expiration::PX(ms(duration))),
                None,
                false,
            )
            .await?;
        Ok(())
    }

    /// Whether a session or user was revoked.
    pub async fn is_revoked(&self, scope: &Scope) -> Result<bool, RedisError> {
        let count: i64 = self.any()?.exists(keys::revoked(scope)).await?;
        Ok(count > 0)
    }
}
