//! One entry of a room's log, carried as the JSON that clients get.

use serde_json::value::RawValue;

use super::{Epoch, Position};

/// What an event does to the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A message of a person.
    Message,
    /// New text for an earlier message.
    Edit,
    /// An earlier message goes.
    Delete,
    /// A reply of the model.
    Gpt,
}

impl EventKind {
    /// The value of `kind` in the message object and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Edit => "edit",
            Self::Delete => "delete",
            Self::Gpt => "gpt",
        }
    }

    /// The Socket.IO event that carries this kind to clients.
    pub fn event_name(self) -> &'static str {
        match self {
            Self::Message | Self::Gpt => "message",
            Self::Edit => "editMessage",
            Self::Delete => "deleteMessage",
        }
    }

    /// Reads `kind` as the log writes it.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "message" => Self::Message,
            "edit" => Self::Edit,
            "delete" => Self::Delete,
            "gpt" => Self::Gpt,
            _ => return None,
        })
    }
}

/// An event of a room at its place in the log.
#[derive(Debug, Clone)]
pub struct RoomEvent {
    /// The place in the log.
    pub position: Position,
    /// The epoch that wrote it.
    pub epoch: Epoch,
    /// What it does.
    pub kind: EventKind,
    /// The message object, encoded once by the node that accepted it.
    pub json: Box<RawValue>,
}
