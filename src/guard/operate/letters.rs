//! Questions to the model that were given up: look at them, have them tried again, forget them.

use serde::Serialize;

use super::{BadOrder, Operate};
use crate::gpt::reset;
use crate::model::UnixMs;
use crate::redis::{Again, Letter, RedisError};

/// Dead letters looked at by one call.
const PAGE: usize = 500;
/// What acts on the queue act on, for the audit stream; one letter has its name behind it.
pub(super) const QUEUE: &str = "queue";

/// Questions that were given up.
#[derive(Debug, Serialize)]
pub struct DeadList {
    /// The newest first.
    pub letters: Vec<Letter>,
    /// How many there are in all.
    pub total: u64,
    /// The server's time, Unix ms.
    pub now: UnixMs,
}

/// Which dead letters are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Letters {
    /// This one.
    One(String),
    /// All that are there when it is ordered.
    All,
}

/// What became of dead letters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Retried {
    /// Questions that are asked anew.
    pub retried: u64,
    /// Questions that have a reply: only their letters were forgotten.
    pub answered: u64,
}

impl Letters {
    /// Reads which; exactly one must be named, or all.
    pub fn new(id: Option<&str>, all: bool) -> Result<Self, BadOrder> {
        let problem = match (id, all) {
            (None, true) => return Ok(Self::All),
            (Some(id), false) if is_entry(id) => return Ok(Self::One(id.to_owned())),
            (Some(id), false) => {
                format!("`{id}` is no name of a dead letter: say 1795620840000-0, as `queue dead` lists it")
            }
            _ => "must be one dead letter, or all".to_owned(),
        };
        Err(BadOrder { what: "id", problem })
    }

    fn scope(&self) -> String {
        match self {
            Self::One(id) => format!("{QUEUE}:{id}"),
            Self::All => QUEUE.to_owned(),
        }
    }
}

/// Whether this names an entry of a stream.
fn is_entry(id: &str) -> bool {
    id.split_once('-').is_some_and(|(ms, number)| {
        [ms, number]
            .iter()
            .all(|part| part.bytes().all(|byte| byte.is_ascii_digit()) && part.parse::<u64>().is_ok())
    })
}

/// Where to look for the letters that are meant.
struct Walk {
    from: String,
    to: String,
}

/// An order for the queue that was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// It makes no sense.
    #[error(transparent)]
    Bad(#[from] BadOrder),
    /// Redis failed.
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl Operate {
    /// The newest dead letters.
    pub async fn queue_dead(&self, limit: usize) -> Result<DeadList, RedisError> {
        Ok(DeadList {
            letters: self.redis.newest_dead(limit).await?,
            total: self.redis.dead_count().await?,
            now: self.redis.server_time().await?,
        })
    }

    /// Has dead letters tried again; `None` where the one that is named is not there. Repeating it is harmless.
    pub async fn queue_retry(&self, letters: &Letters, by: &str) -> Result<Option<Retried>, QueueError> {
        let mut done = Retried::default();
        let tried = self.retry_each(letters, &mut done).await;
        // Also what was done before a failure.
        if done != Retried::default() {
            let reason = format!("{} asked again", done.retried);
            self.redis.audit("retry", letters.scope(), reason, by).await?;
        }
        tried?;
        Ok((done != Retried::default() || *letters == Letters::All).then_some(done))
    }

    async fn retry_each(&self, letters: &Letters, done: &mut Retried) -> Result<(), QueueError> {
        let mut walk = self.walk(letters).await?;
        loop {
            let page = self.page(&mut walk).await?;
            if page.is_empty() {
                return Ok(());
            }
            for letter in page {
                let ours = self.redis.keys.partition(letter.room.as_str());
                if letter.partition.is_some_and(|theirs| theirs != ours) {
                    let problem = "is another one here than at the workers: set it as they have it".to_owned();
                    let what = "ROOMCAST_PARTITIONS";
                    return Err(QueueError::Bad(BadOrder { what, problem }));
                }
                let (name, json) = reset(&letter.to_question(), letter.generation + 1);
                match self.redis.ask_again(&letter, (name, &json)).await? {
                    Again::Asked | Again::Before => done.retried += 1,
                    Again::Answered => done.answered += 1,
                }
                self.redis.forget_dead(vec![letter.id]).await?;
            }
        }
    }

    /// Forgets dead letters; how many, or `None` where the one that is named is not there.
    pub async fn queue_drop(&self, letters: &Letters, by: &str) -> Result<Option<u64>, QueueError> {
        let (mut walk, mut dropped) = (self.walk(letters).await?, 0);
        loop {
            let page = self.page(&mut walk).await?;
            if page.is_empty() {
                break;
            }
            let ids = page.into_iter().map(|letter| letter.id).collect();
            dropped += self.redis.forget_dead(ids).await?;
        }
        if dropped > 0 {
            let reason = format!("{dropped} forgotten");
            self.redis.audit("drop", letters.scope(), reason, by).await?;
        }
        Ok((dropped > 0 || *letters == Letters::All).then_some(dropped))
    }

    async fn walk(&self, letters: &Letters) -> Result<Walk, RedisError> {
        Ok(match letters {
            Letters::One(id) => Walk {
                from: id.clone(),
                to: id.clone(),
            },
            // What dies from now on is not meant: tried again and again, it might never end.
            Letters::All => Walk {
                from: "-".to_owned(),
                to: self
                    .redis
                    .newest_dead(1)
                    .await?
                    .pop()
                    .map_or_else(|| "0-1".to_owned(), |newest| newest.id),
            },
        })
    }

    async fn page(&self, walk: &mut Walk) -> Result<Vec<Letter>, RedisError> {
        let page = self.redis.dead_between(&walk.from, &walk.to, PAGE).await?;
        if let Some(last) = page.last() {
            walk.from = format!("({}", last.id);
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_one_or_all() {
        assert_eq!(
            Letters::new(Some("17-0"), false).unwrap(),
            Letters::One("17-0".to_owned())
        );
        assert_eq!(Letters::new(None, true).unwrap(), Letters::All);
        for (id, all) in [
            (None, false),
            (Some("17-0"), true),
            (Some("17"), false),
            (Some("+"), false),
            (Some("-"), false),
            (Some("17-0-r"), false),
            (Some("(1-1"), false),
            (Some("99999999999999999999-1"), false),
        ] {
            assert!(Letters::new(id, all).is_err(), "{id:?}");
        }
    }
}
