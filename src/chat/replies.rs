//! What people may do about replies of the model.

use super::{Chat, ChatError};
use crate::model::{Identity, RoomId};
use crate::redis::Act;

impl Chat {
    /// Ends the reply to a question: what is being written is kept as far as it has come, what waits gets no reply.
    pub async fn cancel_reply(&self, identity: &Identity, room: &RoomId, question: &str) -> Result<(), ChatError> {
        let Some(found) = self.redis.question(room, question).await? else {
            return Err(ChatError::NotFound);
        };
        let (ender, question) = (found.ender(), found.question);
        if question.user != identity.user && !self.owns_room(identity, room).await? {
            return Err(ChatError::NotAuthor);
        }
        if found.is_running {
            let act = Act::CancelReply {
                room: room.clone(),
                question: question.id,
            };
            return Ok(self.redis.publish_act(&act).await?);
        }
        let (name, json) = crate::gpt::cancelled(&question);
        self.redis.fail_question(&question, ender, (name, &json)).await?;
        Ok(self.redis.finish_question(&question, ender).await?)
    }
}
