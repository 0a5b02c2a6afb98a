//! The calls about messages; their JSON is carried, not read.

use std::collections::HashSet;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::{RoomId, UnixMs};

use super::{Call, Upstream, UpstreamError};

/// What stays as it is in a path; everything else could end the segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The messages of one room.
pub type RoomMessages = (RoomId, Vec<Box<RawValue>>);

/// Which messages of a room are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MessageQuery<'a> {
    /// Those beyond this server time.
    pub timestamp: Option<UnixMs>,
    /// Those beyond the message of this id.
    pub oldmessage: Option<&'a str>,
    /// Newer ones instead of older ones.
    pub newer: bool,
    /// How many at most; the service has its own limit.
    pub limit: Option<u32>,
}

#[derive(Serialize)]
struct SyncRequest<'a> {
    username: &'a str,
    rooms: Vec<SyncRoom<'a>>,
}

#[derive(Serialize)]
struct SyncRoom<'a> {
    #[serde(rename = "roomId")]
    room: &'a RoomId,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<UnixMs>,
}

#[derive(Deserialize)]
struct SyncAnswer {
    #[serde(rename = "roomId")]
    room: RoomId,
    messages: Vec<Box<RawValue>>,
}

#[derive(Serialize)]
struct SaveRequest<'a> {
    events: &'a [&'a RawValue],
}

#[derive(Deserialize)]
struct SaveAnswer {
    saved: u64,
}

impl Upstream {
    /// Asks for a page of a room's messages.
    pub async fn messages(&self, room: &RoomId, query: &MessageQuery<'_>) -> Result<Vec<Box<RawValue>>, UpstreamError> {
        let mut url = address(&self.addresses.get_messages, &[room.as_str()]).ok_or(UNADDRESSABLE)?;
        if *query != MessageQuery::default() {
            let mut pairs = url.query_pairs_mut();
            if let Some(timestamp) = query.timestamp {
                pairs.append_pair("timestamp", &timestamp.to_string());
            }
            if let Some(id) = query.oldmessage {
                pairs.append_pair("oldmessage", id);
            }
            if query.newer {
                pairs.append_pair("type", "new");
            }
            if let Some(limit) = query.limit {
                pairs.append_pair("limit", &limit.to_string());
            }
        }
        self.ask(Call::Messages, self.client.get(url), |body| {
            let messages: Vec<Box<RawValue>> = super::transport::parse(body)?;
            check_objects(&messages)?;
            Ok(messages)
        })
        .await
    }

    /// Asks for one message; `None` when there is none.
    pub async fn message(&self, room: &RoomId, id: &str) -> Result<Option<Box<RawValue>>, UpstreamError> {
        let Some(url) = address(&self.addresses.get_message, &[room.as_str(), id]) else {
            return Ok(None);
        };
        let answer = self.ask(Call::Message, self.client.get(url), |body| {
            let message: Box<RawValue> = super::transport::parse(body)?;
            check_objects(std::slice::from_ref(&message))?;
            Ok(message)
        });
        match answer.await {
            Ok(message) => Ok(Some(message)),
            Err(UpstreamError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks for what several rooms hold after the given times; rooms nobody asked for are left out.
    pub async fn sync_rooms(
        &self,
        username: &str,
        rooms: &[(RoomId, Option<UnixMs>)],
    ) -> Result<Vec<RoomMessages>, UpstreamError> {
        let request = SyncRequest {
            username,
            rooms: rooms
                .iter()
                .map(|(room, timestamp)| SyncRoom {
                    room,
                    timestamp: *timestamp,
                })
                .collect(),
        };
        let asked: HashSet<&RoomId> = rooms.iter().map(|(room, _)| room).collect();
        let http = self.client.post(self.addresses.sync_rooms.clone()).json(&request);
        self.ask(Call::SyncRooms, http, |body| {
            let answers: Vec<SyncAnswer> = super::transport::parse(body)?;
            let mut kept = Vec::with_capacity(answers.len());
            for SyncAnswer { room, messages } in answers {
                check_objects(&messages)?;
                if asked.contains(&room) {
                    kept.push((room, messages));
                }
            }
            Ok(kept)
        })
        .await
    }

    /// Archives events, again without harm; returns how many the service says it holds of them.
    pub async fn save_messages(&self, events: &[&RawValue]) -> Result<u64, UpstreamError> {
        let request = SaveRequest { events };
        let answer: SaveAnswer = self
            .post(Call::SaveMessages, &self.addresses.save_messages, &request)
            .await?;
        Ok(answer.saved)
    }
}

/// A room whose id cannot stand in a path has no messages there to be had.
const UNADDRESSABLE: UpstreamError = UpstreamError::Refused {
    status: 400,
    reason: "unaddressable",
};

/// The address under `base` with `ids` as segments; `None` for ids that a path would resolve away.
fn address(base: &str, ids: &[&str]) -> Option<Url> {
    let mut text = base.to_owned();
    for id in ids {
        // URL parsers take `.` and `..`, encoded or not, as steps through the tree: another call would be made.
        if matches!(*id, "" | "." | "..") {
            return None;
        }
        text.push('/');
        text.extend(utf8_percent_encode(id, SEGMENT));
    }
    Url::parse(&text).ok()
}

fn check_objects(messages: &[Box<RawValue>]) -> Result<(), String> {
    if messages.iter().all(|message| message.get().starts_with('{')) {
        Ok(())
    } else {
        Err("a message that is no object".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_their_segment() {
        let path = |ids: &[&str]| address("http://h/api/get", ids).map(|url| url.path().to_owned());
        assert_eq!(path(&["a/b?c#d%2e"]).unwrap(), "/api/get/a%2Fb%3Fc%23d%252e");
        assert_eq!(path(&["방 1", "5-1"]).unwrap(), "/api/get/%EB%B0%A9%201/5-1");
        assert_eq!(path(&[".."]), None);
        assert_eq!(path(&["r", "."]), None);
        assert_eq!(path(&["a..b"]).unwrap(), "/api/get/a..b");
        assert_eq!(path(&["%2e%2e"]).unwrap(), "/api/get/%252e%252e");
    }
}
