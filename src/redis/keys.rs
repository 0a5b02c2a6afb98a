//! Key names. All keys of a room carry the tag of its partition, so that one script may touch them on a cluster.

use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64;

use crate::model::{RoomId, Scope, UserId};

/// Channel and stream of acts that must not be lost (cuts, evictions).
pub const CONTROL: &str = "rc:ctl";
/// Nodes by the time they were last seen, Unix ms.
pub const NODES: &str = "rc:nodes";
/// Scopes that are banned, by the end of the ban, Unix ms.
pub const BANS: &str = "rc:bans";
/// Stream of what was done to scopes, and by whom.
pub const AUDIT: &str = "rc:audit";

/// Key names of the partitioned part.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    partitions: u16,
}

impl Keys {
    /// Key names for this number of partitions, the same on every node.
    pub fn new(partitions: u16) -> Self {
        Self {
            partitions: partitions.max(1),
        }
    }

    /// How many partitions there are.
    pub fn partitions(self) -> u16 {
        self.partitions
    }

    /// The partition of a room.
    pub fn partition(self, room: &str) -> u16 {
        let partition = xxh3_64(room.as_bytes()) % u64::from(self.partitions);
        u16::try_from(partition).unwrap_or_default()
    }

    fn room_key(self, room: &RoomId, part: &str) -> String {
        format!("rc:{{p{}}}:room:{room}:{part}", self.partition(room.as_str()))
    }

    /// Stream of the room's events.
    pub fn log(self, room: &RoomId) -> String {
        self.room_key(room, "log")
    }

    /// Epoch, sequence and floor of the room.
    pub fn meta(self, room: &RoomId) -> String {
        self.room_key(room, "meta")
    }

    /// Ids of deleted messages.
    pub fn gone(self, room: &RoomId) -> String {
        self.room_key(room, "gone")
    }

    /// Result of an earlier post with this `cid`.
    pub fn idempotency(self, room: &RoomId, user: &UserId, cid: &str) -> String {
        // All three may hold colons: with two of them escaped, no two of these keys are the same.
        let escape = |text: &str| text.replace('%', "%25").replace(':', "%3A");
        let (user, cid) = (escape(user.as_str()), escape(cid));
        format!("rc:{{p{}}}:idem:{room}:{user}:{cid}", self.partition(room.as_str()))
    }

    /// Channel of the room's live events.
    pub fn live(self, room: &RoomId) -> String {
        self.room_key(room, "live")
    }

    /// Channel on which a node hears itself through the primary that holds the partition.
    pub fn canary(self, partition: u16, node: &str) -> String {
        format!("rc:{{p{partition}}}:canary:{node}")
    }

    /// Written before replicas are waited for, so that there is something to wait for.
    pub fn fence(self, partition: u16) -> String {
        format!("rc:{{p{partition}}}:fence")
    }

    /// Rooms of the partition with news.
    pub fn active(self, partition: u16) -> String {
        format!("rc:{{p{partition}}}:active")
    }

    /// Stream of events to archive.
    pub fn archive(self, partition: u16) -> String {
        format!("rc:{{p{partition}}}:archive")
    }

    /// Size of the archive, bytes.
    pub fn archive_bytes(self, partition: u16) -> String {
        format!("rc:{{p{partition}}}:archive:bytes")
    }

    /// Events that the message service refused for good.
    pub fn archive_dead(self, partition: u16) -> String {
        format!("rc:{{p{partition}}}:archive:dead")
    }

    /// Stream of questions to the model that are not queued yet.
    pub fn gpt_outbox(self, partition: u16) -> String {
        format!("rc:{{p{partition}}}:gpt:outbox")
    }

    /// Set by what ends a question: its reply, an error or a cancellation, whichever is first.
    pub fn gpt_end(self, room: &RoomId, question: &str) -> String {
        format!("rc:{{p{}}}:gpt:end:{room}:{question}", self.partition(room.as_str()))
    }

    /// The dead letter for which a question was last asked anew.
    pub fn gpt_again(self, room: &RoomId, question: &str) -> String {
        format!("rc:{{p{}}}:gpt:again:{room}:{question}", self.partition(room.as_str()))
    }

    /// Replies of the room that are being written, as far as they have come.
    pub fn gpt_parts(self, room: &RoomId) -> String {
        self.room_key(room, "gpt")
    }

    /// Summary of what was said in the room before what a prompt holds.
    pub fn gpt_summary(self, room: &RoomId) -> String {
        self.room_key(room, "summary")
    }

    /// Lease of the worker that archives the partition.
    pub fn archive_lease(self, partition: u16) -> String {
        format!("rc:{{p{partition}}}:archive:lease")
    }
}

/// The room of a live channel, without allocating.
pub fn room_of_channel(channel: &str) -> Option<&str> {
    channel
        .strip_prefix("rc:{p")?
        .split_once("}:room:")?
        .1
        .strip_suffix(":live")
}

/// Legacy: rooms a user belongs to.
pub fn user_rooms(user: &UserId) -> String {
    format!("userRooms:{user}")
}

/// Legacy: sockets of connected users who belong to the room.
pub fn room_users(room: &RoomId) -> String {
    format!("roomUsers:{room}")
}

/// Legacy: sockets that receive the room's messages.
pub fn joined_room_users(room: &RoomId) -> String {
    format!("joinedRoomUsers:{room}")
}

/// Legacy: token requests of an address, as scopes count it.
pub fn token_requests(ip: IpAddr) -> String {
    format!("tokenRequests:{ip}")
}

/// Legacy: how many messages a user sent.
pub fn message_requests(user: &UserId) -> String {
    format!("messageRequests:{user}")
}

/// Legacy: connection history of a user.
pub fn connections(user: &UserId) -> String {
    format!("connections:{user}")
}

/// A key of a scope. All of them share a slot, those of an address that of its legacy counter, so that one script may
/// touch them.
fn scope_key(scope: &Scope, part: &str) -> String {
    let tag = match scope {
        Scope::Address(ip) => token_requests(*ip),
        Scope::Range(_) | Scope::User(_) | Scope::Session(_) => scope.to_string(),
    };
    format!("rc:{{{tag}}}:{part}")
}

/// The ban of a scope.
pub fn ban(scope: &Scope) -> String {
    scope_key(scope, "ban")
}

/// How often a scope was banned of late.
pub fn ban_level(scope: &Scope) -> String {
    scope_key(scope, "level")
}

/// Refused acts of a scope.
pub fn strikes(scope: &Scope) -> String {
    scope_key(scope, "strikes")
}

/// Sockets of a scope on all nodes.
pub fn leases(scope: &Scope) -> String {
    scope_key(scope, "leases")
}

/// Rate of a scope's handshakes.
pub fn handshakes(scope: &Scope) -> String {
    rate(scope, "handshakes")
}

/// A rate of a scope.
pub fn rate(scope: &Scope, name: &str) -> String {
    scope_key(scope, &format!("rate:{name}"))
}

/// Mark of a revoked session or user.
pub fn revoked(scope: &Scope) -> String {
    format!("rc:revoked:{scope}")
}

/// Stream of questions that a worker may take, and the channel that says so; autoscaling reads the stream's lag.
pub const GPT_READY: &str = "rc:{gpt}:ready";
/// Channel that says that an outbox has questions.
pub const GPT_ASKED: &str = "rc:{gpt}:asked";
/// Questions by the time at which they are given up, ms of the queue's clock, which stands still while it is paused.
pub const GPT_OPEN: &str = "rc:{gpt}:open";
/// Questions that wait for another attempt, by when, Unix ms.
pub const GPT_DELAYED: &str = "rc:{gpt}:delayed";
/// Stream of questions that were given up for a reason an operator should see.
pub const GPT_DEAD: &str = "rc:{gpt}:dead";
/// Since when, by whom and why the queue is paused, and for how long it was in all.
pub const GPT_PAUSE: &str = "rc:{gpt}:pause";
/// Workers by name: when they were last seen, since when they run, how many questions they answer at once.
pub const GPT_WORKERS: &str = "rc:{gpt}:workers";
/// Stream of the calls of the model and what each took, for who bills.
pub const GPT_USAGE: &str = "rc:{gpt}:usage";
/// Set while all workers hold back, because a provider said so.
pub const GPT_BRAKE: &str = "rc:{gpt}:brake";

/// A question's state.
pub fn gpt_job(job: &str) -> String {
    format!("rc:{{gpt}}:job:{job}")
}

/// The generation of the last claim of a question that was given up: until then its lives are over.
pub fn gpt_buried(job: &str) -> String {
    format!("rc:{{gpt}}:buried:{job}")
}

/// Questions of a room in order; the first is the one that may be answered.
pub fn gpt_room(room: &RoomId) -> String {
    format!("rc:{{gpt}}:room:{room}")
}

/// Questions of a user that their rooms would let go on; the first is the one that may be answered.
pub fn gpt_user(user: &UserId) -> String {
    format!("rc:{{gpt}}:user:{user}")
}

/// Tokens that a user's questions took since midnight UTC.
pub fn gpt_spent_by_user(user: &UserId) -> String {
    format!("rc:{{gpt}}:spent:user:{user}")
}

/// Tokens that a room's questions took since midnight UTC.
pub fn gpt_spent_by_room(room: &RoomId) -> String {
    format!("rc:{{gpt}}:spent:room:{room}")
}

/// Mark of a call of the model whose tokens are counted.
pub fn gpt_settled(job: &str, generation: u64, summary: bool) -> String {
    let suffix = if summary { ":summary" } else { "" };
    format!("rc:{{gpt}}:settled:{job}:{generation}{suffix}")
}

/// Liveness of a node; expires when the node does not renew it.
pub fn node_alive(node: &str) -> String {
    format!("rc:{{node:{node}}}:alive")
}

/// Sockets of a node with their users and rooms: what to reap.
pub fn node_owned(node: &str) -> String {
    format!("rc:{{node:{node}}}:owned")
}

/// Who is reaping a dead node.
pub fn node_claim(node: &str) -> String {
    format!("rc:{{node:{node}}}:claim")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_room_share_a_tag_and_the_channel_names_the_room() {
        let keys = Keys::new(128);
        let room = RoomId::new("room:1:live").unwrap();
        let tag = format!("rc:{{p{}}}:", keys.partition("room:1:live"));
        for key in [keys.log(&room), keys.meta(&room), keys.gone(&room), keys.live(&room)] {
            assert!(key.starts_with(&tag), "{key}");
        }
        assert_eq!(room_of_channel(&keys.live(&room)), Some("room:1:live"));
        assert_eq!(room_of_channel(CONTROL), None);
    }

    #[test]
    fn a_cid_of_one_user_is_never_taken_for_that_of_another() {
        let keys = Keys::new(1);
        let key = |room: &str, user: &str, cid: &str| {
            keys.idempotency(&RoomId::new(room).unwrap(), &UserId::new(user).unwrap(), cid)
        };
        assert_ne!(key("r", "u", "1:x"), key("r", "u:1", "x"));
        assert_ne!(key("r", "u", "x"), key("r:u", "u", "x"));
        assert_ne!(key("r", "u%3A1", "x"), key("r", "u:1", "x"));
    }

    #[test]
    fn an_address_shares_the_slot_of_its_legacy_counter() {
        let scope = Scope::address("192.0.2.7".parse().unwrap());
        assert_eq!(ban(&scope), "rc:{tokenRequests:192.0.2.7}:ban");
        assert_eq!(token_requests("192.0.2.7".parse().unwrap()), "tokenRequests:192.0.2.7");
    }
}
