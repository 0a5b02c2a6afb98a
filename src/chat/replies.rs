//! What people may do about replies of the model.

use super::{Chat, ChatError};
use crate::model::{Identity, RoomId};
use crate::redis::{Act, Ended};

impl Chat {
    /// Ends the reply to a question: what is being written is kept as far as it has come, what waits gets no reply.
    pub async fn cancel_reply(&self, identity: &Identity, room: &RoomId, question: &str) -> Result<(), ChatError> {
        let Some(found) = self.redis.find_question(room, question).await? else {
            return Err(ChatError::NotFound);
        };
        if found.question.user != identity.user && !self.owns_room(identity, room).await? {
            return Err(ChatError::NotAuthor);
        }
        if found.is_running && self.redis.cancel_running(&found).await? {
            // Whoever answers it hears of it at once; a worker that dies before leaves the note to the next one.
            let act = Act::CancelReply {
                room: room.clone(),
                question: found.question.id,
            };
            return Ok(self.redis.publish_act(&act).await?);
        }
        let (ender, question) = (found.ender(), found.question);
        let (name, json) = crate::gpt::cancelled(&question);
        let ended = self.redis.fail_question(&question, ender, (name, &json)).await?;
        self.redis.finish_question(&question, ender).await?;
        match ended {
            Ended::Now => Ok(()),
            Ended::Before | Ended::Superseded => Err(ChatError::NotFound),
        }
    }
}
