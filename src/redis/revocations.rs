//! Marks of ended logins: a session is over for good, a user's tokens up to the moment of the revocation.

use std::time::Duration;

use fred::prelude::*;

use super::{Redis, RedisError, keys, ms};
use crate::model::{Identity, Scope, UnixMs};

/// What marks held before they had a time: they count whenever a token was issued.
const WITHOUT_TIME: &str = "1";

impl Redis {
    /// Marks a session or user as revoked at `at`, for `duration`.
    pub async fn revoke(&self, scope: &Scope, at: UnixMs, duration: Duration) -> Result<(), RedisError> {
        let () = self
            .any()?
            .set(
                keys::revoked(scope),
                at.to_string(),
                Some(Expiration::PX(ms(duration))),
                None,
                false,
            )
            .await?;
        Ok(())
    }

    /// Whether a login was ended: its session, or its user not before the access token was issued.
    pub async fn is_revoked(&self, identity: &Identity) -> Result<bool, RedisError> {
        let client = self.any()?;
        // No new token brings a session back: whatever is issued under its id belongs to the login that was ended.
        let session = async {
            match &identity.session {
                Some(sid) => client.exists(keys::revoked(&Scope::Session(sid.clone()))).await,
                None => Ok(0),
            }
        };
        let user = client.get(keys::revoked(&Scope::User(identity.user.clone())));
        let (sessions, mark): (i64, Option<String>) = futures::try_join!(session, user)?;
        if sessions > 0 {
            return Ok(true);
        }
        Ok(mark.is_some_and(|mark| covers(&mark, identity.issued_at)))
    }
}

/// Whether a user's mark counts for a token.
///
/// Tokens mostly tell the second they were issued in, which is its beginning here: one of the second of the revocation
/// counts as older, because it may be.
fn covers(mark: &str, issued_at: Option<UnixMs>) -> bool {
    if mark == WITHOUT_TIME {
        return true;
    }
    match (mark.parse::<UnixMs>(), issued_at) {
        (Ok(revoked_at), Some(issued_at)) => issued_at <= revoked_at,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_mark_covers_tokens_up_to_its_second_and_those_that_say_nothing() {
        let mark = "1700000000500";
        assert!(covers(mark, Some(1_699_999_999_000)));
        assert!(
            covers(mark, Some(1_700_000_000_000)),
            "the same second may have been before"
        );
        assert!(!covers(mark, Some(1_700_000_001_000)));
        assert!(
            !covers(mark, Some(1_700_000_000_501)),
            "a token that tells milliseconds"
        );
        assert!(covers(mark, None));
        assert!(covers("1", Some(1_700_000_001_000)), "a mark without a time");
        assert!(covers("what is this", Some(1_700_000_001_000)));
    }
}
