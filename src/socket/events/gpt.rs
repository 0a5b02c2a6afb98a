//! `gpt:cancel`.

use std::sync::Arc;

use super::Event;
use crate::chat::ChatError;
use crate::socket::Session;

/// `gpt:cancel`: ends a reply as far as it has come; by who asked, or by the room's owner.
pub async fn cancel(session: &Arc<Session>, event: &Event) -> Result<(), ChatError> {
    let payload = event.payload()?;
    let room = payload.room("roomID")?;
    let identity = session.identity();
    crate::chat::check_identity(&payload, &identity)?;
    if !session.has_joined(&room) {
        return Err(ChatError::NotJoined);
    }
    let id = payload.id_text("id")?;
    // Clients know the reply by its id, and may know the question by its own.
    let question = id.strip_suffix(crate::redis::REPLY_SUFFIX).unwrap_or(&id);
    session.app.chat.cancel_reply(&identity, &room, question).await
}
