//! What calls of the model took: counted for the day's budgets, and recorded for who bills.

use std::time::Duration;

use super::keys::{self, GPT_USAGE};
use super::questions::Question;
use super::script::call;
use super::{Redis, RedisError, ms};

/// How long it is known that a call was counted: longer than anybody tries to, and longer than its question lives.
const SETTLED_TTL: Duration = Duration::from_secs(15 * 60);

/// Tokens of a day, from midnight to midnight UTC; 0: any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budgets {
    /// Of one user, in all rooms.
    pub user: u64,
    /// Of one room, whoever asks.
    pub room: u64,
}

/// Whose tokens they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purse {
    /// Of the user who asks.
    User,
    /// Of the room.
    Room,
}

impl Purse {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "user" => Some(Self::User),
            "room" => Some(Self::Room),
            _ => None,
        }
    }
}

/// What one call of the model took.
#[derive(Debug, Clone, Copy)]
pub struct Spent<'a> {
    /// The claim under which it was made.
    pub generation: u64,
    /// The model, or `-`.
    pub model: &'a str,
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Tokens of the reply, as far as it came.
    pub completion: u64,
    /// Whether the endpoint said so; else they are counted here.
    pub reported: bool,
    /// From the question to the endpoint until the end of its answer.
    pub took: Duration,
    /// How it ended.
    pub result: &'a str,
    /// Whether it was for the room's summary instead of the reply.
    pub summary: bool,
}

impl Redis {
    /// Counts a call for its user and its room, and records it where `records` are kept; `false` when that was done before.
    pub async fn settle_call(&self, question: &Question, spent: &Spent<'_>, records: u32) -> Result<bool, RedisError> {
        let key_names = vec![
            keys::gpt_settled(&question.job(), spent.generation, spent.summary),
            keys::gpt_spent_by_user(&question.user),
            keys::gpt_spent_by_room(&question.room),
            GPT_USAGE.to_owned(),
        ];
        let mut args = vec![
            ms(SETTLED_TTL).into(),
            spent.prompt.saturating_add(spent.completion).to_string().into(),
            i64::from(records).into(),
        ];
        let record = [
            ("user", question.user.as_str().to_owned()),
            ("room", question.room.as_str().to_owned()),
            ("question", question.id.clone()),
            ("gen", spent.generation.to_string()),
            ("model", spent.model.to_owned()),
            ("prompt", spent.prompt.to_string()),
            ("completion", spent.completion.to_string()),
            ("counted", if spent.reported { "endpoint" } else { "here" }.to_owned()),
            ("ms", ms(spent.took).to_string()),
            ("result", spent.result.to_owned()),
        ];
        for (field, value) in record {
            args.push(field.into());
            args.push(value.into());
        }
        let counted: i64 = call(&self.scripts.gpt_settle, self.any()?, key_names, args).await?;
        Ok(counted == 1)
    }
}
