//! The keys of `JWKS_URL`: fetched when needed, renewed in the background, kept through an outage.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::model::Identity;
use crate::upstream::Upstream;

use super::claims::{Rules, explain};
use super::keyset::{KeySet, Selection};
use super::{InvalidToken, VerifyError};

/// How often and how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Keys of this age are fetched again, in the background.
    pub(super) renew: Duration,
    /// Unknown keys make us ask no more often than this: anybody can name one.
    pub(super) floor: Duration,
    /// The same while there are no keys at all, when nobody can connect.
    pub(super) empty_floor: Duration,
    /// Keys of this age are no longer believed.
    pub(super) keep: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            renew: Duration::from_secs(10 * 60),
            floor: Duration::from_secs(5),
            empty_floor: Duration::from_secs(1),
            keep: Duration::from_secs(24 * 3600),
        }
    }
}

/// The newest keys and how they are renewed.
pub(super) struct Jwks {
    url: String,
    rules: Rules,
    upstream: Arc<Upstream>,
    pace: Pace,
    fetched: ArcSwapOption<Fetched>,
    last_attempt: Mutex<Option<Attempt>>,
    /// Held by the one who fetches; the others wait here and look again.
    gate: Arc<tokio::sync::Mutex<()>>,
}

struct Fetched {
    keys: KeySet,
    at: Instant,
}

#[derive(Clone, Copy)]
struct Attempt {
    at: Instant,
    /// False while it runs too: an abandoned attempt is a failed one.
    answered: bool,
}

impl Jwks {
    pub(super) fn new(url: &str, rules: Rules, upstream: Arc<Upstream>) -> Self {
        Self::with_pace(url, rules, upstream, Pace::default())
    }

    pub(super) fn with_pace(url: &str, rules: Rules, upstream: Arc<Upstream>, pace: Pace) -> Self {
        Self {
            url: url.to_owned(),
            rules,
            upstream,
            pace,
            fetched: ArcSwapOption::empty(),
            last_attempt: Mutex::new(None),
            gate: Arc::default(),
        }
    }

    /// Verifies with the known keys; waits for a fetch only when the token's key is not among them.
    pub(super) async fn verify(self: &Arc<Self>, token: &str) -> Result<Identity, VerifyError> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| explain(&error))?;
        let kid = header.kid.as_deref();
        if let Some(fetched) = self.usable() {
            self.renew_if_old(&fetched);
            if let Some(verdict) = self.judge(&fetched.keys, token, kid, header.alg) {
                return verdict;
            }
        }
        self.fetch_now().await;
        let Some(fetched) = self.usable() else {
            return Err(VerifyError::Unavailable("no keys yet: the key set is away".to_owned()));
        };
        if let Some(verdict) = self.judge(&fetched.keys, token, kid, header.alg) {
            return verdict;
        }
        if self.attempt().is_some_and(|attempt| attempt.answered) {
            Err(InvalidToken::UnknownKey.into())
        } else {
            Err(VerifyError::Unavailable(
                "the token's key is not known and the key set is away".to_owned(),
            ))
        }
    }

    /// What `keys` say of the token; `None` when they do not have its key.
    fn judge(
        &self,
        keys: &KeySet,
        token: &str,
        kid: Option<&str>,
        algorithm: jsonwebtoken::Algorithm,
    ) -> Option<Result<Identity, VerifyError>> {
        match keys.select(kid, algorithm) {
            Selection::Key(key) => Some(self.rules.verify(token, key)),
            Selection::OtherAlgorithm => Some(Err(InvalidToken::Algorithm.into())),
            Selection::Ambiguous => Some(Err(InvalidToken::UnknownKey.into())),
            Selection::Unknown => None,
        }
    }

    fn usable(&self) -> Option<Arc<Fetched>> {
        self.fetched
            .load_full()
            .filter(|fetched| fetched.at.elapsed() < self.pace.keep)
    }

    fn attempt(&self) -> Option<Attempt> {
        *self.last_attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_attempt(&self, attempt: Attempt) {
        *self.last_attempt.lock().unwrap_or_else(PoisonError::into_inner) = Some(attempt);
    }

    /// Whether enough time has passed since the last attempt.
    fn may_fetch(&self) -> bool {
        let floor = match self.usable() {
            Some(_) => self.pace.floor,
            None => self.pace.empty_floor,
        };
        self.attempt().is_none_or(|attempt| attempt.at.elapsed() >= floor)
    }

    /// Starts a fetch that nobody waits for; it ends by itself within the timeout of the client.
    fn renew_if_old(self: &Arc<Self>, fetched: &Fetched) {
        if fetched.at.elapsed() < self.pace.renew || !self.may_fetch() {
            return;
        }
        if let Ok(gate) = self.gate.clone().try_lock_owned() {
            let jwks = self.clone();
            tokio::spawn(async move {
                jwks.fetch().await;
                drop(gate);
            });
        }
    }

    /// Fetches, or waits for whoever does; does nothing when the last attempt is too recent.
    async fn fetch_now(&self) {
        let _gate = self.gate.lock().await;
        if self.may_fetch() {
            self.fetch().await;
        }
    }

    async fn fetch(&self) {
        self.note_attempt(Attempt {
            at: Instant::now(),
            answered: false,
        });
        let keys = match self.upstream.jwks(&self.url).await {
            Ok(text) => KeySet::parse(&text, &self.rules).ok_or_else(|| "it has no usable key".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        // From its end: those who waited through an attempt that timed out must not try again one after the other.
        let at = Instant::now();
        let answered = keys.is_ok();
        match keys {
            Ok(keys) => self.fetched.store(Some(Arc::new(Fetched { keys, at }))),
            Err(problem) => tracing::warn!(%problem, "the key set cannot be fetched; known keys stay in use"),
        }
        self.note_attempt(Attempt { at, answered });
    }
}
