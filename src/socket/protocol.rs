//! Every name and shape on the Socket.IO wire that the server writes.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::model::{RoomId, Seq, UnixMs};
use crate::upstream::Participant;

/// Names of the events the server emits.
pub mod event {
    /// An error of an event without an ack.
    pub const ERROR: &str = "errorMessage";
    /// A new access token.
    pub const TOKEN_REFRESH: &str = "token:refresh";
    /// A room's messages, the answer to `join`.
    pub const PREVIOUS_MESSAGES: &str = "previousMessages";
    /// The answer to `syncRooms` for few rooms.
    pub const SYNC_RESPONSE: &str = "syncRoomsResponse";
    /// The answer to `syncRooms` for many rooms.
    pub const UPDATED_ROOMS: &str = "updatedRooms";
    /// Who is in a room.
    pub const ROOM_UPDATE: &str = "roomUpdate";
    /// Why a socket is about to be cut.
    pub const SECURITY_NOTICE: &str = "security:notice";
    /// Continuity of a room cannot be proven.
    pub const SYNC_LOST: &str = "sync:lost";
    /// The node goes away, or has too many.
    pub const SERVER_DRAIN: &str = "server:drain";
}

/// A failed event: as an ack, or as `errorMessage` with the event's name.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure<'a> {
    /// Which event, where there is no ack to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<&'a str>,
    /// Always `false`, in an ack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// The same text as `message`, for old clients that look for an `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
    /// The contract's code.
    pub code: &'a str,
    /// For people.
    pub message: &'a str,
    /// When to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<UnixMs>,
}

/// The ack of a stored event.
#[derive(Debug, Serialize)]
pub struct Stored<'a> {
    /// Always `true`.
    pub ok: bool,
    /// The message.
    pub id: &'a str,
    /// Its number.
    pub seq: Seq,
    /// Its epoch.
    pub epoch: &'a str,
    /// Its server time.
    pub ts: UnixMs,
    /// Whether an earlier send had stored it.
    pub dup: bool,
}

/// The ack of an event that stores nothing.
#[derive(Debug, Serialize)]
pub struct Done {
    /// Always `true`.
    pub ok: bool,
}

/// `token:refresh`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRefresh<'a> {
    /// The new access token.
    pub access_token: &'a str,
    /// The new refresh token, only where the client asked for rotation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<&'a str>,
}

/// Second argument of `previousMessages` for a protocol-2 client.
#[derive(Debug, Serialize)]
pub struct PreviousInfo<'a> {
    /// The room.
    #[serde(rename = "roomID")]
    pub room_id: &'a RoomId,
    /// Its epoch.
    pub epoch: &'a str,
    /// Where the messages end.
    #[serde(rename = "topSeq")]
    pub top_seq: Seq,
    /// Whether they begin where the cursor ended.
    pub recovered: bool,
    /// Whether there is more.
    pub more: bool,
    /// Replies that are being written, as far as they have come.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpt: Vec<PartOfReply>,
}

/// A reply that is being written: further pieces of the same `gen` follow `idx`.
#[derive(Debug, Serialize)]
pub struct PartOfReply {
    /// The reply.
    pub id: String,
    /// Who writes it; a later one begins anew.
    #[serde(rename = "gen")]
    pub generation: u64,
    /// The newest piece in `text`; -1 = none.
    #[serde(rename = "idx")]
    pub index: i64,
    /// The text so far.
    pub text: String,
}

/// One room in the answer to `syncRooms`.
#[derive(Debug, Serialize)]
pub struct SyncedMessages<'a> {
    /// The room.
    #[serde(rename = "roomId")]
    pub room_id: &'a RoomId,
    /// Its messages.
    pub messages: &'a [Box<RawValue>],
    /// Why there are none, where that is an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
}

/// `roomUpdate` for those who have not joined the room.
#[derive(Debug, Serialize)]
pub struct Activity<'a> {
    /// The room.
    #[serde(rename = "roomID")]
    pub room_id: &'a RoomId,
    /// Its newest number.
    #[serde(rename = "topSeq")]
    pub top_seq: Seq,
}

/// `sync:lost`.
#[derive(Debug, Serialize)]
pub struct SyncLost<'a> {
    /// The room.
    #[serde(rename = "roomID")]
    pub room_id: &'a RoomId,
    /// Its epoch now.
    pub epoch: &'a str,
    /// Its newest number now.
    #[serde(rename = "topSeq")]
    pub top_seq: Seq,
}

/// `security:notice`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityNotice<'a> {
    /// The reason, for programs.
    pub code: &'a str,
    /// The reason, for people.
    pub message: &'a str,
    /// How long the block lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_for_ms: Option<u64>,
}

/// `roomUpdate`.
#[derive(Debug, Serialize)]
pub struct RoomUpdate<'a> {
    /// The room.
    #[serde(rename = "roomID")]
    pub room_id: &'a RoomId,
    /// Who belongs to it, up to [`PARTICIPANTS_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participants: Option<Vec<Person<'a>>>,
    /// How many belong to it, where they are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
}

/// Participants up to which `roomUpdate` names them.
pub const PARTICIPANTS_MAX: usize = 100;

/// A participant in `roomUpdate`.
#[derive(Debug, Serialize)]
pub struct Person<'a> {
    /// The user's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platformid: Option<&'a str>,
    /// The user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nickname: Option<&'a str>,
}

impl<'a> RoomUpdate<'a> {
    /// The update of a room with these participants.
    pub fn new(room_id: &'a RoomId, participants: &'a [Participant]) -> Self {
        if participants.len() > PARTICIPANTS_MAX {
            return Self {
                room_id,
                participants: None,
                count: Some(participants.len()),
            };
        }
        let people = participants
            .iter()
            .map(|person| Person {
                platformid: person.platformid.as_deref(),
                nickname: person.nickname.as_deref(),
            })
            .collect();
        Self {
            room_id,
            participants: Some(people),
            count: None,
        }
    }
}
