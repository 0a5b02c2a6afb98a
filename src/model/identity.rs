//! Who a socket belongs to, and where it comes from.

use std::net::IpAddr;

use super::{UnixMs, UserId};

/// A verified user: what the access token says, never what a payload says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's id.
    pub user: UserId,
    /// The display name, compared case-insensitively with what the client claims.
    pub username: String,
    /// The login session (`sid` claim), when the auth service names one.
    pub session: Option<String>,
    /// When the access token was issued; `None` when it does not say.
    pub issued_at: Option<UnixMs>,
    /// When the access token ends; `None` when the auth service does not say.
    pub expires_at: Option<UnixMs>,
}

/// The address a connection counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    /// The client.
    pub ip: IpAddr,
    /// The peer is in a private network, forwards for others and is not declared: it must never be blocked.
    pub undeclared_proxy: bool,
}
