//! What the model is told for a question: the deployment's prompt, the room's, and the messages that fit.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::provider::Prompt;
use super::room_prompts::RoomPrompts;
use super::summary::ToSummarise;
use super::window::{Ask, TokenCounter, choose, left_out};
use crate::config::Config;
use crate::model::{Position, RoomEvent, RoomId};
use crate::redis::{After, LogPage, PageLimit, Question, Redis, RedisError, Summary, Take};

/// Events of a room that may become part of a prompt.
const HISTORY_MAX: usize = 200;
/// Rooms whose last prompt's beginning is remembered, for the discount on what the endpoint knows already.
const STARTS_MAX: u64 = 10_000;

/// Makes message objects of a room's events: edits applied, deleted ones left out, ascending.
pub type Fold = fn(Vec<RoomEvent>) -> Vec<Box<RawValue>>;

/// Makes prompts of questions.
pub struct Prompter {
    redis: Redis,
    fold: Fold,
    /// What the model is told first.
    system: String,
    rooms: RoomPrompts,
    context_tokens: usize,
    max_tokens: u32,
    /// Tokens of a room's summary; 0: there is none.
    summary_tokens: u32,
    counter: Arc<TokenCounter>,
    /// Where the last prompt of a room began.
    starts: moka::sync::Cache<RoomId, String>,
}

/// A prompt, and how many tokens it has as counted here.
pub(super) struct Asked {
    pub(super) prompt: Prompt,
    pub(super) tokens: usize,
}

impl Prompter {
    /// Prompts out of what `fold` makes of a room's events, with the rooms' own prompts from `rooms`.
    pub fn new(config: &Config, redis: Redis, fold: Fold, rooms: RoomPrompts) -> Self {
        Self {
            redis,
            fold,
            system: config.gpt_system_prompt.clone(),
            rooms,
            context_tokens: config.gpt_context_tokens as usize,
            max_tokens: config.gpt_max_tokens,
            summary_tokens: config.gpt_summary_tokens,
            counter: Arc::new(TokenCounter::new()),
            starts: moka::sync::Cache::new(STARTS_MAX),
        }
    }

    /// What counts the tokens.
    pub(super) fn counter(&self) -> &Arc<TokenCounter> {
        &self.counter
    }

    /// The room's newest messages up to the question, as a prompt; `None` where nothing is asked any more.
    pub(super) async fn prompt(&self, question: &Question) -> Result<Option<Asked>, RedisError> {
        let room = &question.room;
        let (page, summary, of_room) = tokio::join!(self.newest(room), self.summary(room), self.rooms.of(room));
        let (mut events, summary) = (page?.events, summary?);
        let asked: Option<Position> = question.id.parse().ok();
        if let Some(asked) = asked.filter(|asked| events.first().is_some_and(|first| first.position > *asked)) {
            // So much was said since that it is not among the newest.
            let before = After::Seq(asked.seq.saturating_sub(1));
            let limit = PageLimit::events(1);
            let page = self
                .redis
                .read_log(&question.room, before, Take::Oldest, limit, false)
                .await?;
            events.splice(0..0, page.events);
        }
        let messages = (self.fold)(events);
        let id = format!("\"id\":\"{}\"", question.id);
        let Some(asked) = messages.iter().find(|message| message.get().contains(&id)) else {
            return Ok(None);
        };
        let start = self.starts.get(&question.room);
        let room: Vec<&RawValue> = messages.iter().map(|message| &**message).collect();
        let system = match of_room {
            // One turn: some models take no second one of this role.
            Some(of_room) if !self.system.is_empty() => format!("{}\n\n{of_room}", self.system),
            Some(of_room) => of_room.to_string(),
            None => self.system.clone(),
        };
        let ask = Ask {
            system: &system,
            room: &room,
            question: asked,
            start: start.as_deref(),
            summary: summary.as_ref().map(|summary| &*summary.text),
            budget: self.context_tokens,
        };
        let Some(window) = choose(&ask, &self.counter) else {
            return Ok(None);
        };
        if let Some(start) = window.start {
            self.starts.insert(question.room.clone(), start);
        }
        Ok(Some(Asked {
            prompt: Prompt {
                turns: window.turns,
                max_tokens: self.max_tokens,
            },
            tokens: window.tokens,
        }))
    }

    async fn newest(&self, room: &RoomId) -> Result<LogPage, RedisError> {
        let limit = PageLimit::events(HISTORY_MAX);
        self.redis
            .read_log(room, After::Start, Take::Newest, limit, false)
            .await
    }

    async fn summary(&self, room: &RoomId) -> Result<Option<Summary>, RedisError> {
        if self.summary_tokens == 0 {
            return Ok(None);
        }
        self.redis.summary(room).await
    }

    /// What is to be added to the room's summary; `None` where nothing is, or rooms have none.
    pub(super) async fn to_summarise(&self, room: &RoomId) -> Result<Option<ToSummarise>, RedisError> {
        let start = self.starts.get(room).filter(|_| self.summary_tokens > 0);
        let Some(start) = start else { return Ok(None) };
        let (page, base) = tokio::join!(self.newest(room), self.summary(room));
        let (page, base) = (page?, base?);
        let known = page.top.seq;
        let messages = (self.fold)(page.events);
        let messages: Vec<&RawValue> = messages.iter().map(|message| &**message).collect();
        let after = base.as_ref().map_or(0, |base| base.seq);
        let left_out = left_out(&messages, &start, after, self.context_tokens, &self.counter);
        Ok(left_out.map(|left_out| ToSummarise::new(left_out, base, known, self.summary_tokens, &self.counter)))
    }
}
