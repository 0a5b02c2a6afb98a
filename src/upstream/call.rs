//! The calls of the contract, and which answers of each are refusals.

/// A service that answers calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Verifies and exchanges tokens (`AUTH_URL`).
    Auth,
    /// Knows rooms and keeps messages (`API_URL`).
    Api,
    /// Publishes the keys of access tokens (`JWKS_URL`).
    Jwks,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 3] = [Self::Auth, Self::Api, Self::Jwks];

    /// Its name in logs and reasons.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Api => "api",
            Self::Jwks => "jwks",
        }
    }
}

/// One call of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    VerifyToken,
    RefreshToken,
    CheckRoom,
    UserRooms,
    DeleteRoom,
    Messages,
    Message,
    SyncRooms,
    SaveMessages,
    Jwks,
}

impl Call {
    /// Every call, for the test of what is declared.
    #[cfg(test)]
    pub(super) const ALL: [Self; 10] = [
        Self::VerifyToken,
        Self::RefreshToken,
        Self::CheckRoom,
        Self::UserRooms,
        Self::DeleteRoom,
        Self::Messages,
        Self::Message,
        Self::SyncRooms,
        Self::SaveMessages,
        Self::Jwks,
    ];

    /// The label of metrics and log lines.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::VerifyToken => "verify_token",
            Self::RefreshToken => "refresh_token",
            Self::CheckRoom => "check_room",
            Self::UserRooms => "user_rooms",
            Self::DeleteRoom => "delete_room",
            Self::Messages => "messages",
            Self::Message => "message",
            Self::SyncRooms => "sync_rooms",
            Self::SaveMessages => "save_messages",
            Self::Jwks => "jwks",
        }
    }

    pub(super) fn service(self) -> Service {
        match self {
            Self::VerifyToken | Self::RefreshToken => Service::Auth,
            Self::Jwks => Service::Jwks,
            _ => Service::Api,
        }
    }

    /// What a status refuses, where the contract says that it refuses.
    ///
    /// A 401 of the API is about our own bearer token, a setting of the operator: an outage, not the user's doing.
    pub(super) fn refusal(self, status: u16) -> Option<&'static str> {
        match (self, status) {
            (Self::VerifyToken, 401) => Some("expired"),
            (Self::VerifyToken, 400 | 403) => Some("invalid"),
            (Self::RefreshToken, 400 | 401 | 403) => Some("refused"),
            (Self::CheckRoom, 400) => Some("forged"),
            (Self::UserRooms | Self::DeleteRoom, 400 | 403) => Some("refused"),
            (Self::Messages | Self::SyncRooms, 400) => Some("refused"),
            (Self::Message, 404) => Some("not_found"),
            // A batch that will never be taken: retrying it would block the archive behind it.
            (Self::SaveMessages, 400 | 413 | 422) => Some("refused"),
            _ => None,
        }
    }
}
