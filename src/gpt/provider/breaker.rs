//! Whether an endpoint is asked: not while it is known to fail, and then by one call first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ProviderError;

/// Failures in a row after which an endpoint is left alone: one may be chance, three are not.
const FAILURES_MAX: u32 = 3;
/// How long it is left alone at first; doubled each time it still fails.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
/// The longest pause, so that a repaired endpoint is in use again within half a minute.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The pause when an endpoint asks for one and does not say how long; also until a trial call may have an outcome.
const PAUSE_SHORT: Duration = Duration::from_secs(1);

/// The circuit breaker of one endpoint.
pub(super) struct Breaker {
    /// The endpoint in log lines.
    label: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Failures since the last complete reply.
    failures: u32,
    /// Pauses since the last complete reply.
    pauses: u32,
    open: Option<Open>,
}

/// Why and until when an endpoint is left alone.
struct Open {
    until: Instant,
    error: ProviderError,
    /// Whether a call is under way to see if it is back.
    trial: bool,
}

/// The right to make one call; dropped without an outcome it says nothing about the endpoint.
pub(super) struct Permit {
    breaker: Arc<Breaker>,
    /// Whether this call decides if the endpoint is back.
    trial: bool,
}

impl Breaker {
    pub(super) fn new(label: String) -> Self {
        Self {
            label,
            state: Mutex::default(),
        }
    }

    /// Admits a call, or tells why the endpoint is left alone and for how long.
    pub(super) fn admit(self: &Arc<Self>, now: Instant) -> Result<Permit, ProviderError> {
        let mut state = self.lock();
        let trial = match &mut state.open {
            None => false,
            Some(open) if open.until > now => return Err(defer(&open.error, open.until - now)),
            Some(open) if open.trial => return Err(defer(&open.error, PAUSE_SHORT)),
            Some(open) => {
                open.trial = true;
                true
            }
        };
        Ok(Permit {
            breaker: self.clone(),
            trial,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A state is whole after every statement, also after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// The endpoint has begun to answer: it may be asked again. One more failure and it is left alone again.
    pub(super) fn begun(&mut self) {
        if std::mem::take(&mut self.trial) {
            let mut state = self.breaker.lock();
            state.open = None;
            state.failures = FAILURES_MAX - 1;
            tracing::info!(endpoint = self.breaker.label, "model endpoint answers again");
        }
    }

    /// The reply came to its end.
    pub(super) fn completed(&mut self) {
        self.begun();
        let mut state = self.breaker.lock();
        (state.failures, state.pauses) = (0, 0);
    }

    /// The call failed; what is the prompt's fault says that the endpoint is well.
    pub(super) fn failed(&mut self, error: &ProviderError, now: Instant) {
        if error.is_of_the_prompt() || *error == ProviderError::TooLarge {
            return self.begun();
        }
        let trial = std::mem::take(&mut self.trial);
        let mut state = self.breaker.lock();
        state.failures += 1;
        let pause = match error {
            ProviderError::RateLimited { retry_after } => retry_after.unwrap_or(PAUSE_SHORT),
            // Nobody but an operator can help; asking on would only look like guessing keys.
            ProviderError::Unauthorized(_) => PAUSE_MAX,
            // Calls that were under way when the pause began say nothing new.
            _ if !trial && (state.open.is_some() || state.failures < FAILURES_MAX) => return,
            _ => {
                let pause = PAUSE_FIRST.saturating_mul(1 << state.pauses.min(8)).min(PAUSE_MAX);
                state.pauses += 1;
                pause
            }
        };
        if state.open.is_none() {
            tracing::warn!(endpoint = self.breaker.label, code = error.code(), %error, ?pause, "model endpoint is left alone");
        }
        let known = state.open.as_ref().filter(|_| !trial);
        state.open = Some(Open {
            until: known.map_or(now + pause, |open| open.until.max(now + pause)),
            error: error.clone(),
            trial: known.is_some_and(|open| open.trial),
        });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.trial
            && let Some(open) = &mut self.breaker.lock().open
        {
            open.trial = false;
        }
    }
}

/// What a call that is not made would have met.
fn defer(error: &ProviderError, left: Duration) -> ProviderError {
    let retry_after = Some(left);
    match error {
        ProviderError::RateLimited { .. } => ProviderError::RateLimited { retry_after },
        ProviderError::Unauthorized(status) => ProviderError::Unauthorized(*status),
        ProviderError::Unavailable { problem, .. } => ProviderError::Unavailable {
            problem: problem.clone(),
            retry_after,
        },
        other => ProviderError::Unavailable {
            problem: other.to_string(),
            retry_after,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn down() -> ProviderError {
        ProviderError::unavailable("down")
    }

    fn fail(breaker: &Arc<Breaker>, now: Instant, error: &ProviderError) {
        breaker.admit(now).ok().unwrap().failed(error, now);
    }

    fn refusal(breaker: &Arc<Breaker>, now: Instant) -> Option<ProviderError> {
        breaker.admit(now).err()
    }

    #[test]
    fn after_three_failures_an_endpoint_is_left_alone_longer_and_longer() {
        let (breaker, mut now) = (Arc::new(Breaker::new("e".into())), Instant::now());
        for _ in 0..FAILURES_MAX {
            fail(&breaker, now, &down());
        }
        for seconds in [2, 4, 8, 16, 30, 30] {
            let left = refusal(&breaker, now).unwrap().retry_after().unwrap();
            assert_eq!(left, seconds * SECOND);
            now += left;
            fail(&breaker, now, &down());
        }
    }

    #[test]
    fn one_call_tries_whether_an_endpoint_is_back() {
        let (breaker, now) = (Arc::new(Breaker::new("e".into())), Instant::now());
        for _ in 0..FAILURES_MAX {
            fail(&breaker, now, &down());
        }
        let later = now + PAUSE_FIRST;
        let trial = breaker.admit(later).ok().unwrap();
        assert_eq!(refusal(&breaker, later).unwrap().code(), "provider_unavailable");
        // A cancelled trial says nothing and blocks nobody.
        drop(trial);
        let mut trial = breaker.admit(later).ok().unwrap();
        trial.begun();
        let mut other = breaker.admit(later).ok().unwrap();
        // It breaks off after the first token: back to the pause.
        trial.failed(&ProviderError::BadStream("cut"), later);
        assert!(refusal(&breaker, later).is_some());
        // What was under way neither prolongs the pause nor ends it.
        other.failed(&down(), later);
        assert_eq!(refusal(&breaker, later).unwrap().retry_after(), Some(2 * PAUSE_FIRST));
    }

    #[test]
    fn a_complete_reply_forgets_failures_and_a_faulty_prompt_is_none() {
        let (breaker, now) = (Arc::new(Breaker::new("e".into())), Instant::now());
        for _ in 0..10 {
            fail(&breaker, now, &down());
            fail(&breaker, now, &ProviderError::ContextTooLong);
            fail(&breaker, now, &down());
            breaker.admit(now).ok().unwrap().completed();
        }
        assert_eq!(refusal(&breaker, now), None);
    }

    #[test]
    fn a_pause_asked_for_is_kept_and_a_wrong_key_is_not_tried_again_and_again() {
        let (breaker, now) = (Arc::new(Breaker::new("e".into())), Instant::now());
        let error = ProviderError::RateLimited {
            retry_after: Some(7 * SECOND),
        };
        fail(&breaker, now, &error);
        assert_eq!(refusal(&breaker, now), Some(error));
        let later = now + 7 * SECOND;
        fail(&breaker, later, &ProviderError::Unauthorized(401));
        assert_eq!(refusal(&breaker, later), Some(ProviderError::Unauthorized(401)));
        assert!(refusal(&breaker, later + PAUSE_MAX).is_none());
    }
}
