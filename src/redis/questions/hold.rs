//! What keeps workers from taking questions: an operator's pause, or the provider's brake.

use std::time::Duration;

use fred::prelude::*;
use fred::types::SetOptions;
use serde::Serialize;

use super::call;
use crate::model::UnixMs;
use crate::redis::keys::{GPT_BRAKE, GPT_PAUSE, GPT_READY, GPT_WORKERS};
use crate::redis::{Redis, RedisError, from_ms, ms};

/// After how long a silent worker is forgotten: long enough to be seen by whoever looks for what died.
const FORGET: Duration = Duration::from_secs(3600);

/// An operator's order to take no questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pause {
    /// Since when, Unix ms.
    pub since: UnixMs,
    /// Who ordered it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What keeps workers from taking questions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holds {
    /// An operator paused the queue.
    pub pause: Option<Pause>,
    /// The provider wants no calls for so long.
    pub brake: Option<Duration>,
}

/// The pause, where there is one, and the ms that the brake still holds, which may be none.
pub(super) fn read_holds(since: Option<String>, by: String, reason: String, brake: i64) -> Result<Holds, RedisError> {
    let since = since.map(|since| since.parse().map_err(|_| RedisError::Unexpected("pause")));
    Ok(Holds {
        pause: since.transpose()?.map(|since| Pause { since, by, reason }),
        brake: (brake > 0).then(|| from_ms(brake)),
    })
}

impl Redis {
    /// What keeps workers from taking questions now.
    pub async fn question_holds(&self) -> Result<Holds, RedisError> {
        let pipeline = self.any()?.pipeline();
        let () = pipeline.hmget(GPT_PAUSE, vec!["since", "by", "reason"]).await?;
        let () = pipeline.pttl(GPT_BRAKE).await?;
        let (pause, brake): (Vec<Option<String>>, i64) = pipeline.all().await?;
        let [since, by, reason] = <[Option<String>; 3]>::try_from(pause).unwrap_or_default();
        read_holds(since, by.unwrap_or_default(), reason.unwrap_or_default(), brake)
    }

    /// Makes all workers hold back for a while; a longer hold stays.
    pub async fn brake_questions(&self, hold: Duration) -> Result<(), RedisError> {
        let expiry = Some(Expiration::PX(ms(hold)));
        let _set: Option<String> = self
            .any()?
            .set(GPT_BRAKE, "1", expiry, Some(SetOptions::NX), false)
            .await?;
        Ok(())
    }

    /// Makes all workers take no more questions; `false` when they were told before.
    pub async fn pause_questions(&self, by: &str, reason: &str) -> Result<bool, RedisError> {
        let args = vec![by.into(), reason.into()];
        let new: i64 = call(&self.scripts.gpt_pause, self.any()?, vec![GPT_PAUSE.to_owned()], args).await?;
        Ok(new == 1)
    }

    /// Lets workers take questions again; for how long they did not, or `None` when the queue was not paused.
    pub async fn resume_questions(&self) -> Result<Option<Duration>, RedisError> {
        let paused: i64 = call(
            &self.scripts.gpt_resume,
            self.any()?,
            vec![GPT_PAUSE.to_owned()],
            vec![],
        )
        .await?;
        Ok((paused >= 0).then(|| from_ms(paused)))
    }

    /// Shows that a worker is there, which answers so many questions at once.
    pub async fn show_worker(&self, worker: &str, since: UnixMs, slots: usize) -> Result<(), RedisError> {
        let args = vec![
            worker.into(),
            since.to_string().into(),
            slots.to_string().into(),
            ms(FORGET).into(),
        ];
        let key_names = vec![GPT_WORKERS.to_owned(), GPT_READY.to_owned()];
        let _nothing: Value = call(&self.scripts.gpt_worker, self.any()?, key_names, args).await?;
        Ok(())
    }

    /// Takes a worker off the list that ends.
    pub async fn hide_worker(&self, worker: &str) -> Result<(), RedisError> {
        let () = self.any()?.hdel(GPT_WORKERS, worker).await?;
        Ok(())
    }
}
