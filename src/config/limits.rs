//! Rates, and the rules of the guard by name.

use std::str::FromStr;
use std::time::Duration;

use super::value::Setting;

/// The longest time a rate may take for one: beyond it a limit is a ban.
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);

/// How often something may happen: steadily, and at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Time between two when they come steadily.
    pub interval: Duration,
    /// How many may come at once.
    pub burst: u32,
}

impl Setting for Rate {
    /// Reads `50/s burst 300`; without a burst it is the number itself.
    fn parse(text: &str) -> Result<Self, String> {
        let hint = || "use a rate such as `50/s burst 300`, with /s, /m or /h".to_owned();
        let words: Vec<&str> = text.split_whitespace().collect();
        let (rate, burst) = match words[..] {
            [rate] => (rate, None),
            [rate, "burst", burst] => (rate, Some(burst)),
            _ => return Err(hint()),
        };
        let (count, unit) = rate.split_once('/').ok_or_else(hint)?;
        let unit = match unit {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(hint()),
        };
        let count: u32 = count.parse().map_err(|_| hint())?;
        let burst: u32 = burst.map_or(Ok(count), str::parse).map_err(|_| hint())?;
        if count == 0 || burst == 0 {
            return Err("must not be zero: nobody could do anything".to_owned());
        }
        let interval = unit / count;
        if interval.is_zero() || interval > INTERVAL_MAX {
            return Err(hint());
        }
        Ok(Self { interval, burst })
    }
}

word_setting! {
    /// A rule of the guard: what it acts on, for `GUARD_SHADOW`, metrics, bans and logs.
    #[derive(Hash)]
    Rule {
        /// A handshake without one of its fields.
        MissingField = "missing_field",
        /// A handshake whose `userAgent` is not the application's.
        UserAgent = "user_agent",
        /// A valid access token under another's name.
        Username = "username",
        /// A refresh token of another user.
        RefreshOfAnother = "refresh_of_another",
        /// A refresh token that the auth service refuses.
        RefreshRefused = "refresh_refused",
        /// A user whom the room service refuses.
        UserRefused = "user_refused",
        /// A room that the room service calls forged.
        ForgedRoom = "forged_room",
        /// `syncRooms` without saying for whom.
        SyncWithoutUser = "sync_without_user",
        /// Too many refused acts.
        Strikes = "strikes",
        /// Too many token requests of an address.
        TokenRequests = "token_requests",
        /// Events that go on far beyond their rate.
        Flood = "flood",
        /// Too many handshakes of an address.
        Handshakes = "handshakes",
        /// Too many sockets of an address.
        SocketsPerAddress = "sockets_per_address",
        /// Too many sockets of a user.
        SocketsPerUser = "sockets_per_user",
        /// Too many connections of an address that have not said who they are.
        Unauthenticated = "unauthenticated",
        /// Too many events of a socket.
        Events = "events",
        /// Too many messages of a user.
        Messages = "messages",
        /// Too many costly events of a user.
        Costly = "costly"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_steady_part_and_a_burst() {
        let rate = Rate::parse("50/s burst 300").unwrap();
        assert_eq!((rate.interval, rate.burst), (Duration::from_millis(20), 300));
        let rate = Rate::parse("120/m").unwrap();
        assert_eq!((rate.interval, rate.burst), (Duration::from_millis(500), 120));
        for bad in [
            "",
            "50",
            "50/d",
            "0/s",
            "5/s burst 0",
            "5/s bursts 3",
            "-1/s",
            "x/s",
            "5000000000/s",
        ] {
            assert!(Rate::parse(bad).is_err(), "{bad}");
        }
    }
}
