//! `/api/rooms/*`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Backend;
use super::error::BackendError;
use super::input::{Body, Time, check_count, check_id, check_name, optional_millis};
use super::store::{Account, Creation, Participant, Room};
use super::tokens::now_ms;

/// Most participants one call may name; also keeps the answer of check-room near 1 MiB.
const MAX_PARTICIPANTS: usize = 10_000;
/// Most rooms of one user that are listed.
pub(super) const MAX_ROOMS: i64 = 10_000;

/// Longest prompt of a room, in bytes: what workers take of it where nothing else is set.
const MAX_PROMPT: usize = 4096;

type Answer = Result<Json<Value>, BackendError>;

#[derive(Deserialize)]
pub struct CheckRoom {
    #[serde(rename = "roomID", alias = "roomId")]
    room_id: String,
    #[serde(rename = "createdAt")]
    created_at: Option<Time>,
}

pub async fn check(State(backend): State<Backend>, Body(check): Body<CheckRoom>) -> Answer {
    check_id(&check.room_id, "roomID")?;
    let claimed = optional_millis(check.created_at.as_ref(), "createdAt")?;
    let Some(room) = backend.store().room(&check.room_id).await? else {
        return Ok(Json(json!({ "exist": false, "participants": [] })));
    };
    check_created_at(&room, claimed)?;
    let mut answer = json!({ "exist": true, "participants": room.participants });
    if let Some(owner) = room.owner {
        answer["owner"] = owner.into();
    }
    if let Some(prompt) = room.gpt_prompt {
        answer["gptPrompt"] = prompt.into();
    }
    Ok(Json(answer))
}

/// A caller who names another creation time than the stored one made the room up.
fn check_created_at(room: &Room, claimed: Option<i64>) -> Result<(), BackendError> {
    match (room.created_at, claimed) {
        (Some(stored), Some(claimed)) if stored != claimed => Err(BackendError::Forged { field: "createdAt" }),
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
pub struct UserRooms {
    platformid: String,
    username: String,
}

pub async fn of_user(State(backend): State<Backend>, Body(user): Body<UserRooms>) -> Answer {
    let account = backend.known(&user.platformid, &user.username).await?;
    let rooms = backend.store().rooms_of(&account.platformid, MAX_ROOMS).await?;
    Ok(Json(json!({ "rooms": rooms })))
}

impl Backend {
    /// The user with this id, if the name is theirs.
    async fn known(&self, platformid: &str, username: &str) -> Result<Account, BackendError> {
        check_id(platformid, "platformid")?;
        check_name(username, "username")?;
        let account = self.store().account_by_id(platformid).await?;
        account
            .filter(|account| account.username.to_lowercase() == username.to_lowercase())
            .ok_or(BackendError::UnknownUser)
    }
}

#[derive(Deserialize)]
pub struct CreateRoom {
    #[serde(rename = "roomID", alias = "roomId")]
    room_id: String,
    #[serde(rename = "createdAt")]
    created_at: Option<Time>,
    owner: Option<String>,
    #[serde(rename = "gptPrompt")]
    gpt_prompt: Option<String>,
    participants: Vec<Participant>,
}

pub async fn create(
    State(backend): State<Backend>,
    Body(room): Body<CreateRoom>,
) -> Result<(StatusCode, Json<Value>), BackendError> {
    check_id(&room.room_id, "roomID")?;
    let created_at = optional_millis(room.created_at.as_ref(), "createdAt")?;
    check_count(room.participants.len(), MAX_PARTICIPANTS, "participants")?;
    if room.participants.is_empty() {
        return Err(BackendError::bad("participants", "a room needs somebody in it"));
    }
    for (index, participant) in room.participants.iter().enumerate() {
        check_id(&participant.platformid, &format!("participants[{index}].platformid"))?;
        check_name(&participant.nickname, &format!("participants[{index}].nickname"))?;
    }
    if let Some(owner) = &room.owner
        && !room
            .participants
            .iter()
            .any(|participant| participant.platformid == *owner)
    {
        return Err(BackendError::bad("owner", "must be the platformid of a participant"));
    }
    if room.gpt_prompt.as_ref().is_some_and(|prompt| prompt.len() > MAX_PROMPT) {
        return Err(BackendError::bad("gptPrompt", "too long"));
    }
    let store = backend.store();
    let creation = store
        .create_room(
            &room.room_id,
            created_at,
            room.owner.as_deref(),
            room.gpt_prompt.as_deref(),
            &room.participants,
        )
        .await?;
    let (status, created) = match creation {
        Creation::Created => (StatusCode::CREATED, true),
        Creation::Completed => (StatusCode::OK, false),
        Creation::Contradiction => return Err(BackendError::Conflict("the room exists with another createdAt")),
    };
    Ok((status, Json(json!({ "roomID": room.room_id, "created": created }))))
}

#[derive(Deserialize)]
pub struct DeleteRoom {
    #[serde(rename = "roomID", alias = "roomId")]
    room_id: String,
    #[serde(rename = "createdAt")]
    created_at: Option<Time>,
    platformid: String,
    username: String,
}

pub async fn delete(State(backend): State<Backend>, Body(wish): Body<DeleteRoom>) -> Answer {
    check_id(&wish.room_id, "roomID")?;
    let claimed = optional_millis(wish.created_at.as_ref(), "createdAt")?;
    let account = backend.known(&wish.platformid, &wish.username).await?;
    if claimed.is_some()
        && let Some(room) = backend.store().room(&wish.room_id).await?
    {
        check_created_at(&room, claimed)?;
    }
    let deleted = backend
        .store()
        .leave_room(&wish.room_id, &account.platformid, now_ms())
        .await?;
    Ok(Json(json!({ "deleted": deleted })))
}
