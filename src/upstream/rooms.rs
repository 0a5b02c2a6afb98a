//! The calls about rooms.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::{Identity, RoomId};

use super::wire;
use super::{Call, Upstream, UpstreamError};

/// What the room service knows of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomInfo {
    /// Whether there is such a room.
    pub exist: bool,
    /// Who belongs to it.
    pub participants: Vec<Participant>,
    /// The platform id of its owner, where the service names one.
    pub owner: Option<String>,
    /// What members are told of it, once somebody has made it: many ask for the same room within a moment.
    pub update: OnceLock<String>,
}

/// Somebody who belongs to a room.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Participant {
    /// The user's id.
    #[serde(default, deserialize_with = "wire::optional_text")]
    pub platformid: Option<String>,
    /// The user's name.
    #[serde(default)]
    pub nickname: Option<String>,
}

impl Participant {
    /// Whether this is the user: by id, and by name (in any case) only where the service gives no id.
    pub fn is(&self, identity: &Identity) -> bool {
        match (&self.platformid, &self.nickname) {
            (Some(id), _) => id == identity.user.as_str(),
            (None, Some(name)) => name.to_lowercase() == identity.username.to_lowercase(),
            (None, None) => false,
        }
    }
}

impl RoomInfo {
    /// Whether the room exists and the user belongs to it.
    pub fn includes(&self, identity: &Identity) -> bool {
        self.exist && self.participants.iter().any(|participant| participant.is(identity))
    }
}

#[derive(Serialize)]
struct CheckRequest<'a> {
    #[serde(rename = "roomID")]
    room: &'a RoomId,
    #[serde(rename = "createdAt", skip_serializing_if = "Option::is_none")]
    created_at: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct CheckAnswer {
    exist: bool,
    participants: Option<Vec<Participant>>,
    #[serde(default, deserialize_with = "wire::optional_text")]
    owner: Option<String>,
}

/// Of the same answer what only the model is told. It is new and optional: what is no text is taken as none.
#[derive(Deserialize)]
struct PromptAnswer {
    exist: bool,
    #[serde(rename = "gptPrompt")]
    gpt_prompt: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct UserRequest<'a> {
    #[serde(rename = "roomID", skip_serializing_if = "Option::is_none")]
    room: Option<&'a RoomId>,
    platformid: &'a str,
    username: &'a str,
}

#[derive(Deserialize)]
struct RoomsAnswer {
    #[serde(deserialize_with = "wire::texts")]
    rooms: Vec<String>,
}

#[derive(Deserialize)]
struct DeleteAnswer {
    deleted: bool,
}

impl Upstream {
    /// Asks what a room is; `Refused` means that the request was forged.
    pub async fn check_room(&self, room: &RoomId, created_at: Option<&RawValue>) -> Result<RoomInfo, UpstreamError> {
        let request = self.client.post(self.addresses.check_room.clone());
        self.ask(
            Call::CheckRoom,
            request.json(&CheckRequest { room, created_at }),
            |body| {
                let answer: CheckAnswer = super::transport::parse(body)?;
                if answer.exist && answer.participants.is_none() {
                    return Err("a room without a list of participants".to_owned());
                }
                Ok(RoomInfo {
                    exist: answer.exist,
                    participants: answer.participants.unwrap_or_default(),
                    owner: answer.owner,
                    update: OnceLock::new(),
                })
            },
        )
        .await
    }

    /// Asks what the model is to be told in a room, where the service names something.
    pub async fn room_prompt(&self, room: &RoomId) -> Result<Option<String>, UpstreamError> {
        let request = CheckRequest { room, created_at: None };
        let answer: PromptAnswer = self.post(Call::CheckRoom, &self.addresses.check_room, &request).await?;
        let prompt = answer.gpt_prompt.filter(|_| answer.exist);
        Ok(prompt.and_then(|prompt| prompt.as_str().map(str::to_owned)))
    }

    /// Asks for the rooms of a user; ids that cannot be room ids are left out.
    pub async fn user_rooms(&self, identity: &Identity) -> Result<Vec<RoomId>, UpstreamError> {
        let request = user_request(None, identity);
        let answer: RoomsAnswer = self.post(Call::UserRooms, &self.addresses.user_rooms, &request).await?;
        let total = answer.rooms.len();
        let rooms: Vec<RoomId> = answer.rooms.iter().filter_map(|id| RoomId::new(id).ok()).collect();
        if rooms.len() < total {
            tracing::warn!(
                user = %identity.user,
                skipped = total - rooms.len(),
                "the room service lists ids that cannot be room ids",
            );
        }
        Ok(rooms)
    }

    /// Removes a user from a room; true when nobody is left.
    pub async fn delete_room(&self, room: &RoomId, identity: &Identity) -> Result<bool, UpstreamError> {
        let request = user_request(Some(room), identity);
        let answer: DeleteAnswer = self
            .post(Call::DeleteRoom, &self.addresses.delete_room, &request)
            .await?;
        Ok(answer.deleted)
    }
}

fn user_request<'a>(room: Option<&'a RoomId>, identity: &'a Identity) -> UserRequest<'a> {
    UserRequest {
        room,
        platformid: identity.user.as_str(),
        username: &identity.username,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UserId;

    #[test]
    fn a_name_counts_only_where_the_id_is_absent() {
        let info: CheckAnswer = serde_json::from_str(
            r#"{"exist":true,"participants":[{"nickname":"Bob","platformid":"p9"},{"nickname":"ÄNNA"},{"platformid":7}]}"#,
        )
        .unwrap();
        let info = RoomInfo {
            exist: true,
            participants: info.participants.unwrap(),
            owner: None,
            update: OnceLock::new(),
        };
        let user = |id: &str, name: &str| Identity {
            user: UserId::new(id).unwrap(),
            username: name.to_owned(),
            session: None,
            issued_at: None,
            expires_at: None,
        };
        assert!(info.includes(&user("p9", "whoever")));
        assert!(
            !info.includes(&user("p1", "bob")),
            "a name must not stand in for another id"
        );
        assert!(info.includes(&user("p2", "änna")));
        assert!(info.includes(&user("7", "x")));
        assert!(!RoomInfo { exist: false, ..info }.includes(&user("p9", "whoever")));
    }
}
