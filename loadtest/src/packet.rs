//! Engine.IO v4 and Socket.IO v5 packets as text, parsed without copying the payload.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Separates the packets of one polling body.
pub const SEPARATOR: char = '\u{1e}';

/// The namespace this client speaks.
pub const ROOT: &str = "/";

/// Why a packet could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// Nothing at all.
    #[error("empty packet")]
    Empty,
    /// The first character names no packet type.
    #[error("unknown packet type {0:?}")]
    Type(char),
    /// The ack id is missing or does not fit 64 bits.
    #[error("bad ack id")]
    AckId,
    /// A binary packet without a readable number of attachments.
    #[error("bad attachment count")]
    Attachments,
    /// A packet that must carry no payload has one, or the other way round.
    #[error("{0} packet with a wrong payload")]
    Payload(&'static str),
    /// The payload is not the JSON it should be.
    #[error("bad JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// What the server says when an Engine.IO session opens.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handshake {
    /// The engine session.
    pub sid: String,
    /// Transports this session may move to.
    #[serde(default)]
    pub upgrades: Vec<String>,
    /// Milliseconds between two pings of the server.
    pub ping_interval: u64,
    /// Milliseconds after which an expected ping or pong counts as missing.
    pub ping_timeout: u64,
    /// Bytes one polling body may have; 0 where the server names none.
    #[serde(default)]
    pub max_payload: usize,
}

/// One Engine.IO packet.
#[derive(Debug)]
pub enum EnginePacket<'a> {
    /// `0{..}`
    Open(Handshake),
    /// `1`
    Close,
    /// `2`, with the text of a probe where there is one.
    Ping(&'a str),
    /// `3`
    Pong(&'a str),
    /// `4`, carrying a Socket.IO packet.
    Message(&'a str),
    /// `5`
    Upgrade,
    /// `6`
    Noop,
}

impl<'a> EnginePacket<'a> {
    /// Reads one text packet.
    pub fn parse(text: &'a str) -> Result<Self, PacketError> {
        let mut chars = text.chars();
        let kind = chars.next().ok_or(PacketError::Empty)?;
        let rest = chars.as_str();
        Ok(match kind {
            '0' => Self::Open(serde_json::from_str(rest)?),
            '1' => Self::Close,
            '2' => Self::Ping(rest),
            '3' => Self::Pong(rest),
            '4' => Self::Message(rest),
            '5' => Self::Upgrade,
            '6' => Self::Noop,
            other => return Err(PacketError::Type(other)),
        })
    }
}

/// One Socket.IO packet.
#[derive(Debug)]
pub struct Packet<'a> {
    /// `/` where the packet names none.
    pub namespace: &'a str,
    /// What it says.
    pub body: Body<'a>,
}

/// What a Socket.IO packet says.
#[derive(Debug)]
pub enum Body<'a> {
    /// `0`
    Connect(Option<&'a RawValue>),
    /// `1`
    Disconnect,
    /// `2`
    Event {
        /// The answer the sender wants, if any.
        ack: Option<u64>,
        /// The event's name.
        name: String,
        /// The whole JSON array, its first element being the name.
        array: &'a str,
    },
    /// `3`
    Ack {
        /// Which emission it answers.
        id: u64,
        /// The JSON array of the answer.
        array: &'a str,
    },
    /// `4`
    ConnectError(&'a RawValue),
    /// `5` and `6`, which this client does not read; the attachments follow as binary frames.
    Binary {
        /// How many binary frames follow.
        attachments: usize,
    },
}

impl<'a> Packet<'a> {
    /// Reads one Socket.IO packet, without the leading `4` of its Engine.IO envelope.
    pub fn parse(text: &'a str) -> Result<Self, PacketError> {
        let mut chars = text.chars();
        let kind = chars.next().ok_or(PacketError::Empty)?;
        let mut rest = chars.as_str();
        let mut attachments = 0;
        if matches!(kind, '5' | '6') {
            let (count, tail) = rest.split_once('-').ok_or(PacketError::Attachments)?;
            attachments = count.parse().map_err(|_| PacketError::Attachments)?;
            rest = tail;
        }
        let mut namespace = ROOT;
        if rest.starts_with('/') {
            (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (id, payload) = rest.split_at(digits);
        let ack = match id {
            "" => None,
            id => Some(id.parse().map_err(|_| PacketError::AckId)?),
        };
        let body = match kind {
            '0' if payload.is_empty() => Body::Connect(None),
            '0' => Body::Connect(Some(object(payload, "connect")?)),
            '1' if rest.is_empty() => Body::Disconnect,
            '1' => return Err(PacketError::Payload("disconnect")),
            '2' => Body::Event {
                ack,
                name: serde_json::from_str::<Head>(payload)?.0,
                array: payload,
            },
            '3' => {
                let id = ack.ok_or(PacketError::AckId)?;
                if !raw(payload)?.get().starts_with('[') {
                    return Err(PacketError::Payload("ack"));
                }
                Body::Ack { id, array: payload }
            }
            '4' => Body::ConnectError(raw(payload)?),
            '5' | '6' => Body::Binary { attachments },
            other => return Err(PacketError::Type(other)),
        };
        Ok(Self { namespace, body })
    }
}

fn raw(payload: &str) -> Result<&RawValue, PacketError> {
    Ok(serde_json::from_str(payload)?)
}

fn object<'a>(payload: &'a str, what: &'static str) -> Result<&'a RawValue, PacketError> {
    let value = raw(payload)?;
    if value.get().starts_with('{') {
        Ok(value)
    } else {
        Err(PacketError::Payload(what))
    }
}

/// The name in front of an event's array; the rest is only checked for being JSON.
struct Head(String);

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Head;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array that starts with the event's name")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Head, A::Error> {
                let name = seq
                    .next_element()?
                    .ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Head(name))
            }
        }
        deserializer.deserialize_seq(Reader)
    }
}

/// The CONNECT frame for the root namespace, with its Engine.IO envelope.
pub fn encode_connect(auth: Option<&serde_json::Value>) -> String {
    auth.map_or_else(|| "40".to_owned(), |auth| format!("40{auth}"))
}

/// An event or ack frame under construction, with its Engine.IO envelope.
#[derive(Debug)]
pub struct FrameWriter {
    text: String,
    empty: bool,
}

impl FrameWriter {
    /// Starts `42[id]["name"`.
    pub fn event(ack: Option<u64>, name: &str) -> Result<Self, serde_json::Error> {
        let id = ack.map(|id| id.to_string()).unwrap_or_default();
        Self {
            text: format!("42{id}["),
            empty: true,
        }
        .arg(name)
    }

    /// Starts `43id[`.
    pub fn ack(id: u64) -> Self {
        Self {
            text: format!("43{id}["),
            empty: true,
        }
    }

    /// Appends one argument.
    pub fn arg<T: serde::Serialize + ?Sized>(mut self, value: &T) -> Result<Self, serde_json::Error> {
        if !self.empty {
            self.text.push(',');
        }
        self.empty = false;
        self.text.push_str(&serde_json::to_string(value)?);
        Ok(self)
    }

    /// The finished frame.
    pub fn finish(mut self) -> String {
        self.text.push(']');
        self.text
    }
}

#[cfg(test)]
mod tests;
