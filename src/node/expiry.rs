//! The end of access tokens: sockets whose token has ended are cut, and tokens that do not say when they end are verified
//! again at the auth service.
//!
//! One look over the sockets serves them all: a timer per socket would cost memory in each of them for something that
//! most never see. A socket whose token holds costs a comparison, no call.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Interval, MissedTickBehavior};

use crate::auth::VerifyError;
use crate::model::{UnixMs, unix_ms};
use crate::socket::{App, Inbox, Job, Live, Session, Socket, cut};

/// The pace of the look. With [`RENEWAL_GRACE`] and the time a notice gets to leave, a socket is gone 1.25 s after its
/// token's end: 2 s are promised.
const TICK: Duration = Duration::from_millis(500);
/// How long a socket outlives its token: a `join` that comes as the token ends renews it in silence, and must not lose
/// that race.
const RENEWAL_GRACE: UnixMs = 500;
/// Sockets cut in one look, a thousand a second. Each comes back at once, with an exchange of tokens at the auth service:
/// what everybody got within seconds, after an outage say, also ends within seconds, and a node that cut 20 000 sockets
/// at once would ask for 20 000 exchanges at once, by its own doing. So the rest waits, at worst 20 s; `join` does not
/// wait, and as the new tokens are issued over that time, they do not end together again.
const CUTS_MAX: usize = 500;
/// Tokens verified, or exchanged after it, at once. A full node (20 000 sockets, each once a minute) keeps up while a
/// call takes less than 100 ms; a slower service is asked less often, not more at once.
const VERIFICATIONS_MAX: usize = 32;

/// Cuts sockets whose access token ended unrenewed, until cancelled. That is no block and no strike: they are to come
/// back, with their refresh token.
pub async fn cut_expired(app: Arc<App>) {
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let mut expired = expired(&app, unix_ms());
        if expired.len() > CUTS_MAX {
            tracing::info!(
                sockets = expired.len(),
                "many access tokens end at once: their sockets are cut in turn"
            );
        }
        keep_oldest(&mut expired, CUTS_MAX);
        for (_, Live { session, socket }) in expired {
            cut(&session, &socket, "auth_expired", None);
        }
    }
}

/// Sockets whose token has ended, with that time.
fn expired(app: &App, now: UnixMs) -> Vec<(UnixMs, Live)> {
    let ended = |session: &Session| {
        session
            .expires_at()
            .filter(|end| end.saturating_add(RENEWAL_GRACE) <= now)
    };
    app.sockets
        .iter()
        .filter_map(|live| Some((ended(&live.session)?, live.value().clone())))
        .filter(|(_, live)| live.session.cut_reason().is_none())
        .collect()
}

/// Leaves those whose time came first, so that nobody waits for ever.
fn keep_oldest<T>(timed: &mut Vec<(UnixMs, T)>, max: usize) {
    if timed.len() > max {
        timed.select_nth_unstable_by_key(max, |(time, _)| *time);
        timed.truncate(max);
    }
}

/// Verifies access tokens without an end again when they are due, until cancelled.
pub async fn verify_again(app: Arc<App>) {
    let slots = Arc::new(Semaphore::new(VERIFICATIONS_MAX));
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let sockets = app.sockets.iter();
        let due: Vec<Live> = sockets
            .filter(|live| live.session.is_verification_due())
            .map(|live| live.value().clone())
            .collect();
        for Live { session, socket } in due {
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            // While it waited for its turn, it may have gone or renewed its token.
            if session.cut_reason().is_none()
                && app.sockets.contains_key(&socket.id)
                && let Some(access) = session.begin_verification()
            {
                app.tracker.spawn(verify(session, socket, access, slot));
            }
        }
    }
}

/// Asks about one token. Only a refusal has consequences, never beside the socket's own events, which may renew the token
/// too; a service that is away, or answers what nobody expects, ends no socket.
async fn verify(session: Arc<Session>, socket: Socket, access: Arc<str>, permit: OwnedSemaphorePermit) {
    match session.app.auth.verify(&access).await {
        Ok(identity) if identity.user == session.identity().user => session.confirm(&access, identity),
        Ok(identity) => {
            tracing::warn!(answer = %identity.user, "the auth service now names another user for a token");
        }
        Err(VerifyError::Unavailable(reason)) => tracing::debug!(reason, "token not verified again"),
        Err(VerifyError::Invalid(_)) => {
            let refused = access;
            let _queued = Inbox::push(&session, &socket, Job::Renew { refused, permit });
        }
    }
}

fn ticks() -> Interval {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_end_together_are_dealt_with_in_bounded_portions_oldest_first() {
        let mut waiting: Vec<(UnixMs, usize)> = (0..20_000_usize).map(|n| ((n * 7919 % 20_000) as UnixMs, n)).collect();
        keep_oldest(&mut waiting, CUTS_MAX);
        assert_eq!(waiting.len(), CUTS_MAX);
        assert!(waiting.iter().all(|(end, _)| *end < CUTS_MAX as UnixMs));
        let mut few = vec![(3, ()), (1, ())];
        keep_oldest(&mut few, CUTS_MAX);
        assert_eq!(few.len(), 2);
    }
}
