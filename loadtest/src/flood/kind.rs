//! The floods, and how hard each of them is.

use clap::ValueEnum;

use crate::deployment::plan::display_as_value;

/// Clients of a crowd: as many users as a limit per user does not catch together.
pub const CROWD: usize = 20;
/// Idle sockets, as the promise says.
pub const IDLE: usize = 10_000;
/// Connections of the slow flood, half of them slow heads; with the idle ones far below 20 000 descriptors.
pub const SLOW: usize = 4_000;
/// Distinct addresses, as the promise says.
pub const ADDRESSES: u32 = 100_000;

/// A flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Websocket and polling handshakes from one address, as many as one core makes
    Handshakes,
    /// The same from an address that is blocked already
    Banned,
    /// Frames and polling bodies over the limit, by strangers and by a valid client
    Oversize,
    /// Request heads a byte at a time, and websockets that never CONNECT
    Slow,
    /// A valid client that floods message, join and unknown events
    Events,
    /// Twenty such clients in one room
    Crowd,
    /// 10 000 idle websockets without CONNECT, opened again as they are closed
    Idle,
    /// Handshakes from 100 000 addresses through a trusted proxy
    Addresses,
}

impl Kind {
    /// Source addresses of the attacker. More than one where the limits of one address would end the flood before it
    /// reaches what it is aimed at.
    pub fn sources(self) -> u8 {
        match self {
            Self::Handshakes | Self::Banned | Self::Slow | Self::Events | Self::Crowd | Self::Addresses => 1,
            Self::Oversize => 16,
            // 200 sockets each: below the burst of handshakes that every address has.
            Self::Idle => 50,
        }
    }

    /// Users that attack at a time.
    pub fn users(self) -> usize {
        match self {
            Self::Oversize | Self::Events => 1,
            Self::Crowd => CROWD,
            Self::Handshakes | Self::Banned | Self::Slow | Self::Idle | Self::Addresses => 0,
        }
    }

    /// Whether the ratio is judged. Floods from everywhere are promised bounded memory only: no limit of an address
    /// can tell them from people.
    pub fn judges_ratio(self) -> bool {
        self != Self::Addresses
    }

    /// Settings of the node that the flood needs beside the defaults.
    pub fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Addresses => &[("TRUSTED_PROXIES", "127.0.0.1/32")],
            _ => &[],
        }
    }
}

display_as_value!(Kind);
