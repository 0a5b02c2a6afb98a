//! Shapes that several answers share.

use serde::{Deserialize, Deserializer};

use crate::model::{UnixMs, UserId};

/// An id written as text or as a whole number.
#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrNumber {
    Text(String),
    Unsigned(u64),
    Signed(i64),
}

impl From<TextOrNumber> for String {
    fn from(value: TextOrNumber) -> Self {
        match value {
            TextOrNumber::Text(text) => text,
            TextOrNumber::Unsigned(number) => number.to_string(),
            TextOrNumber::Signed(number) => number.to_string(),
        }
    }
}

/// Reads an id that may be a number.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    TextOrNumber::deserialize(deserializer).map(Into::into)
}

/// Reads an id that may be a number, null or absent.
pub(super) fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::<TextOrNumber>::deserialize(deserializer).map(|value| value.map(Into::into))
}

/// Reads a list of ids that may be numbers.
pub(super) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Vec::<TextOrNumber>::deserialize(deserializer).map(|values| values.into_iter().map(Into::into).collect())
}

/// The user of a token answer.
#[derive(Deserialize)]
pub(super) struct User {
    #[serde(deserialize_with = "user_id")]
    pub(super) platformid: UserId,
    #[serde(deserialize_with = "filled")]
    pub(super) username: String,
    #[serde(default, deserialize_with = "optional_session")]
    pub(super) sid: Option<String>,
}

fn user_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UserId, D::Error> {
    UserId::new(&text(deserializer)?).map_err(serde::de::Error::custom)
}

/// Reads a login session, which becomes part of key names like a user's id.
fn optional_session<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let session = optional_text(deserializer)?.filter(|sid| !sid.is_empty());
    if let Some(sid) = &session {
        UserId::new(sid).map_err(serde::de::Error::custom)?;
    }
    Ok(session)
}

/// Reads text that must not be empty.
pub(super) fn filled<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Err(serde::de::Error::custom("empty"));
    }
    Ok(text)
}

/// Reads Unix seconds, whole or fractional, as milliseconds.
pub(super) fn optional_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UnixMs>, D::Error> {
    let Some(seconds) = Option::<f64>::deserialize(deserializer)? else {
        return Ok(None);
    };
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(serde::de::Error::custom("no time"));
    }
    // A float beyond the range saturates, which means "never" here.
    Ok(Some((seconds * 1000.0) as UnixMs))
}
