//! Messages, edits and deletions: composed and checked here, stored by one script.

use xxhash_rust::xxh3::xxh3_64;

use super::payload::{Payload, write_field, write_text};
use super::{Chat, ChatError};
use crate::model::{EventKind, Identity, RoomId};
use crate::redis::{Authority, Draft, Posted, Receipt};

/// Longest id of an earlier message, bytes; archives of before have their own forms.
const MAX_MESSAGE_ID: usize = 256;

/// Refuses fields that name somebody other than the caller.
pub fn check_identity(payload: &Payload<'_>, identity: &Identity) -> Result<(), ChatError> {
    for name in ["platformid", "platformId"] {
        if payload.raw(name).is_some() && payload.id_text(name)? != identity.user.as_str() {
            return Err(ChatError::NotYou(name));
        }
    }
    match payload.text("username")? {
        Some(name) if name.to_lowercase() != identity.username.to_lowercase() => Err(ChatError::NotYou("username")),
        _ => Ok(()),
    }
}

/// A draft of `message`.
pub fn compose_message(
    payload: &Payload<'_>,
    identity: &Identity,
    room: &RoomId,
    max_text: usize,
    mention: &str,
) -> Result<Draft, ChatError> {
    let text = message_text(payload, max_text)?;
    let gpt = payload.flag("gpt")? || text.starts_with(mention);
    compose(payload, identity, room, EventKind::Message, None, Some(&text), gpt)
}

/// A draft of `editMessage`.
pub fn compose_edit(
    payload: &Payload<'_>,
    identity: &Identity,
    room: &RoomId,
    max_text: usize,
) -> Result<Draft, ChatError> {
    let text = message_text(payload, max_text)?;
    compose(
        payload,
        identity,
        room,
        EventKind::Edit,
        Some(message_id(payload)?),
        Some(&text),
        false,
    )
}

/// A draft of `deleteMessage`.
pub fn compose_delete(payload: &Payload<'_>, identity: &Identity, room: &RoomId) -> Result<Draft, ChatError> {
    compose(
        payload,
        identity,
        room,
        EventKind::Delete,
        Some(message_id(payload)?),
        None,
        false,
    )
}

fn message_text(payload: &Payload<'_>, max_text: usize) -> Result<String, ChatError> {
    let text = payload.required_text("message")?;
    if text.len() > max_text {
        return Err(ChatError::TooLarge(format!(
            "`message` has {} bytes; {max_text} are allowed",
            text.len()
        )));
    }
    Ok(text.into_owned())
}

fn message_id(payload: &Payload<'_>) -> Result<String, ChatError> {
    let id = payload.id_text("id")?;
    if id.is_empty() || id.len() > MAX_MESSAGE_ID || id.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
        return Err(ChatError::BadPayload("`id` is no message id".into()));
    }
    Ok(id.into_owned())
}

fn compose(
    payload: &Payload<'_>,
    identity: &Identity,
    room: &RoomId,
    kind: EventKind,
    target: Option<String>,
    text: Option<&str>,
    gpt: bool,
) -> Result<Draft, ChatError> {
    check_identity(payload, identity)?;
    let cid = payload.cid()?;
    let mut prefix = String::with_capacity(256 + text.map_or(0, str::len));
    prefix.push('{');
    payload.write_own_fields(&mut prefix);
    write_text(&mut prefix, "roomID", room.as_str());
    write_text(&mut prefix, "platformid", identity.user.as_str());
    write_text(&mut prefix, "username", &identity.username);
    if let Some(text) = text {
        write_text(&mut prefix, "message", text);
    }
    write_text(&mut prefix, "kind", kind.as_str());
    if let Some(cid) = &cid {
        write_text(&mut prefix, "cid", cid);
    }
    if gpt {
        write_field(&mut prefix, "gpt", "true");
    }
    let mut hash = xxh3_64(prefix.as_bytes());
    if let Some(target) = &target {
        hash ^= xxh3_64(target.as_bytes()).rotate_left(1);
    }
    Ok(Draft {
        prefix,
        kind,
        user: identity.user.clone(),
        target,
        authority: Authority::Author,
        cid,
        hash,
        trace: String::new(),
        asks: gpt.then(|| crate::gpt::queue_full(room)),
        answers: None,
    })
}

impl Chat {
    /// Stores messages of one socket in a room, in order and in one round trip.
    pub async fn post(&self, room: &RoomId, drafts: &[Draft]) -> Vec<Result<Receipt, ChatError>> {
        let results: Vec<Result<Receipt, ChatError>> = match self.post_timed(room, drafts).await {
            Ok(posted) => posted.into_iter().map(read_posted).collect(),
            Err(error) => drafts.iter().map(|_| Err(error.clone())).collect(),
        };
        results.iter().for_each(|result| self.count(result));
        results
    }

    async fn post_timed(&self, room: &RoomId, drafts: &[Draft]) -> Result<Vec<Posted>, ChatError> {
        let timer = self.metrics.post_duration_seconds.start_timer();
        let posted = self.redis.post(room, drafts, self.limits).await;
        timer.observe_duration();
        posted.map_err(ChatError::from_post)
    }

    fn count(&self, result: &Result<Receipt, ChatError>) {
        let label = match result {
            Ok(receipt) if receipt.dup => "dup",
            Ok(_) => "ok",
            Err(error) => error.code(),
        };
        self.metrics.posts_total.inc([label]);
    }

    /// Stores an edit or a deletion; asks the archive for the author of a message that the log no longer holds, and the
    /// room service for the owner where a deletion is not the author's.
    pub async fn change(&self, identity: &Identity, room: &RoomId, draft: Draft) -> Result<Receipt, ChatError> {
        let changed = self.post_change(identity, room, draft).await;
        self.count(&changed);
        changed
    }

    async fn post_change(&self, identity: &Identity, room: &RoomId, mut draft: Draft) -> Result<Receipt, ChatError> {
        // Each answer can raise the authority once, so this ends after at most three posts.
        for _ in 0..3 {
            let posted = self.post_timed(room, std::slice::from_ref(&draft)).await?;
            match posted.into_iter().next() {
                Some(Posted::Elsewhere) if draft.authority != Authority::Checked => {
                    self.check_archived_author(identity, room, &draft).await?;
                    draft.authority = Authority::Checked;
                }
                Some(Posted::NotAuthor) if draft.kind == EventKind::Delete && draft.authority == Authority::Author => {
                    if !self.owns_room(identity, room).await? {
                        return Err(ChatError::NotAuthor);
                    }
                    draft.authority = Authority::Owner;
                }
                Some(posted) => return read_posted(posted),
                None => return Err(ChatError::Internal),
            }
        }
        Err(ChatError::NotFound)
    }

    async fn check_archived_author(&self, identity: &Identity, room: &RoomId, draft: &Draft) -> Result<(), ChatError> {
        let id = draft.target.as_deref().unwrap_or_default();
        let message = self.upstream.message(room, id).await?.ok_or(ChatError::NotFound)?;
        let message = Payload::parse(&message).map_err(|_| ChatError::NotFound)?;
        let author = message.id_text("platformid").unwrap_or_default();
        if author == identity.user.as_str() || draft.authority == Authority::Owner {
            return Ok(());
        }
        if draft.kind == EventKind::Delete && self.owns_room(identity, room).await? {
            return Ok(());
        }
        Err(ChatError::NotAuthor)
    }
}

fn read_posted(posted: Posted) -> Result<Receipt, ChatError> {
    match posted {
        Posted::Stored(receipt) => Ok(receipt),
        // Only replies of the model are superseded.
        Posted::Conflict | Posted::Superseded => Err(ChatError::CidConflict),
        Posted::RoomGone => Err(ChatError::RoomGone),
        Posted::NotAuthor => Err(ChatError::NotAuthor),
        Posted::NotFound | Posted::Elsewhere => Err(ChatError::NotFound),
        Posted::Backlog => Err(ChatError::Unavailable("the archive")),
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::model::UserId;

    fn compose(json: &str) -> Result<Draft, ChatError> {
        let raw = RawValue::from_string(json.to_owned()).unwrap();
        let identity = Identity {
            user: UserId::new("p1").unwrap(),
            username: "Ann".into(),
            session: None,
            issued_at: None,
            expires_at: None,
        };
        compose_message(
            &Payload::parse(&raw)?,
            &identity,
            &RoomId::new("r").unwrap(),
            100,
            "@gpt",
        )
    }

    #[test]
    fn the_server_writes_identity_and_place_whatever_the_client_says() {
        let draft = compose(
            r#"{"roomID":"r","message":"hi \"you\"","id":"forged","seq":1,"platformid":"p1","username":"aNN","x":1}"#,
        )
        .unwrap();
        let event: serde_json::Value = serde_json::from_str(&format!("{}}}", draft.prefix)).unwrap();
        assert_eq!(
            event,
            serde_json::json!({"x":1,"roomID":"r","platformid":"p1","username":"Ann","message":"hi \"you\"","kind":"message"})
        );
    }

    #[test]
    fn somebody_elses_name_is_refused_as_a_strike() {
        let error = compose(r#"{"roomID":"r","message":"x","platformId":"p2"}"#).unwrap_err();
        assert!(error.is_strike());
        assert!(
            compose(r#"{"roomID":"r","message":"x","username":"Bob"}"#)
                .unwrap_err()
                .is_strike()
        );
    }

    #[test]
    fn wrong_types_and_long_texts_are_refused() {
        assert_eq!(
            compose(r#"{"roomID":"r","message":1}"#).unwrap_err().code(),
            "bad_payload"
        );
        assert_eq!(compose(r#"{"roomID":"r"}"#).unwrap_err().code(), "bad_payload");
        assert_eq!(
            compose(&format!(r#"{{"roomID":"r","message":"{}"}}"#, "x".repeat(101)))
                .unwrap_err()
                .code(),
            "too_large"
        );
        assert_eq!(
            compose(r#"{"roomID":"r","message":"x","gpt":"yes"}"#)
                .unwrap_err()
                .code(),
            "bad_payload"
        );
        assert!(
            compose(r#"{"roomID":"r","message":"@gpt why"}"#)
                .unwrap()
                .prefix
                .contains("\"gpt\":true")
        );
    }
}
