//! Identifiers that come from outside and end up in key names.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

/// The longest id accepted, in bytes: ids become part of key names and of every event.
pub const MAX_ID_BYTES: usize = 256;

/// Why a string cannot be an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The id has no characters.
    #[error("must not be empty")]
    Empty,
    /// The id is longer than 256 bytes.
    #[error("must not be longer than {MAX_ID_BYTES} bytes")]
    TooLong,
    /// Braces would choose the cluster slot of a key, control characters would forge log lines.
    #[error("must not contain braces or control characters")]
    Forbidden,
}

fn check(id: &str) -> Result<(), InvalidId> {
    if id.is_empty() {
        return Err(InvalidId::Empty);
    }
    if id.len() > MAX_ID_BYTES {
        return Err(InvalidId::TooLong);
    }
    if id.chars().any(|c| c == '{' || c == '}' || c.is_control()) {
        return Err(InvalidId::Forbidden);
    }
    Ok(())
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `id` against the rules of [`InvalidId`].
            pub fn new(id: &str) -> Result<Self, InvalidId> {
                check(id)?;
                Ok(Self(id.into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id_type! {
    /// A room, as clients and the room service name it (`roomID`).
    RoomId
}
id_type! {
    /// A user, as the auth service names them (`platformid`).
    UserId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_would_break_key_names_are_refused() {
        assert_eq!(RoomId::new(""), Err(InvalidId::Empty));
        assert_eq!(RoomId::new("a{b}"), Err(InvalidId::Forbidden));
        assert_eq!(UserId::new("a\nb"), Err(InvalidId::Forbidden));
        assert_eq!(UserId::new(&"x".repeat(257)), Err(InvalidId::TooLong));
        assert!(serde_json::from_str::<RoomId>("\"a}\"").is_err());
        assert_eq!(serde_json::from_str::<RoomId>("\"방-1\"").unwrap().as_str(), "방-1");
    }
}
