//! What a room's owner wants the model to be told, as the room service names it.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;

use crate::model::RoomId;
use crate::upstream::{Upstream, UpstreamError};

/// How long an answer counts, as that about a user's rooms does.
const FRESH: Duration = Duration::from_secs(60);
/// How soon after a failure the room service is asked again.
const RETRY: Duration = Duration::from_secs(5);
/// How long the last answer stands in while the room service is away.
const KEPT: Duration = Duration::from_secs(15 * 60);
/// Rooms whose prompt is remembered: 20 MB where each has the longest that is allowed by default.
const ROOMS_MAX: u64 = 5_000;

/// The prompts of rooms, asked for when a question is answered.
pub struct RoomPrompts {
    upstream: Arc<Upstream>,
    /// Bytes of a prompt.
    longest: usize,
    known: Cache<RoomId, Known>,
}

#[derive(Clone)]
struct Known {
    prompt: Option<Arc<str>>,
    until: Instant,
}

impl RoomPrompts {
    /// Prompts of up to `longest` bytes; 0: there are none.
    pub fn new(upstream: Arc<Upstream>, longest: usize) -> Self {
        Self {
            upstream,
            longest,
            known: Cache::builder().max_capacity(ROOMS_MAX).time_to_live(KEPT).build(),
        }
    }

    /// The room's prompt. A room service that is away costs no reply: the last prompt stands in, or there is none.
    pub(super) async fn of(&self, room: &RoomId) -> Option<Arc<str>> {
        if self.longest == 0 {
            return None;
        }
        let known = self.known.get(room);
        match known {
            Some(known) if known.until > Instant::now() => return known.prompt,
            _ => {}
        }
        let (prompt, lasts) = match self.upstream.room_prompt(room).await {
            Ok(prompt) => (prompt.as_deref().and_then(|prompt| self.bounded(prompt)), FRESH),
            Err(UpstreamError::Refused { .. }) => (None, FRESH),
            Err(error) => {
                tracing::warn!(%error, "the room's prompt is not known");
                (known.and_then(|known| known.prompt), RETRY)
            }
        };
        let until = Instant::now() + lasts;
        self.known.insert(
            room.clone(),
            Known {
                prompt: prompt.clone(),
                until,
            },
        );
        prompt
    }

    fn bounded(&self, prompt: &str) -> Option<Arc<str>> {
        let prompt = prompt.trim();
        // Whole letters only; the empty beginning is always one.
        let end = (0..=self.longest.min(prompt.len()))
            .rev()
            .find(|end| prompt.is_char_boundary(*end))?;
        let prompt = &prompt[..end];
        (!prompt.is_empty()).then(|| prompt.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::upstream::testing::{Scripted, config};

    /// The answer about the room is old.
    fn age(prompts: &RoomPrompts, room: &RoomId) {
        let known = prompts.known.get(room).unwrap();
        let until = Instant::now();
        prompts.known.insert(room.clone(), Known { until, ..known });
    }

    #[tokio::test]
    async fn room_service_is_asked_once_a_minute_and_may_be_away() {
        let service = Scripted::start(200, json!({"exist": true, "gptPrompt": " In verse. "})).await;
        let upstream = Arc::new(Upstream::new(&config(&[("API_URL", &service.url)])).unwrap());
        let prompts = RoomPrompts::new(upstream.clone(), 100);
        let room = RoomId::new("r").unwrap();
        for _ in 0..3 {
            assert_eq!(prompts.of(&room).await.as_deref(), Some("In verse."));
        }
        assert_eq!(service.asked().len(), 1);

        service.answer(503, "");
        age(&prompts, &room);
        for _ in 0..3 {
            assert_eq!(prompts.of(&room).await.as_deref(), Some("In verse."));
        }
        assert_eq!(service.asked().len(), 2);

        service.answer(200, json!({"exist": true, "gptPrompt": "In prose."}));
        age(&prompts, &room);
        assert_eq!(prompts.of(&room).await.as_deref(), Some("In prose."));
        assert_eq!(RoomPrompts::new(upstream, 0).of(&room).await, None);
        assert_eq!(
            service.asked().len(),
            3,
            "rooms that have no prompts are not asked about"
        );
    }
}
