//! Keys of the wrong type: a script must fail before it has written or published anything.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use roomcast::model::UserId;
use roomcast::redis::{After, ArchiveEntry, LogKeep, PageLimit, PostLimits, RedisError, Take};

use super::checks;
use super::model::Tombstone;
use super::op::{Act, Right, Spoilt, Target, USERS, What, Words};
use super::run::Run;

const LIMITS: PostLimits = PostLimits {
    log_max_len: 1000,
    archive_max_bytes: usize::MAX >> 1,
};
const KEEP_NOTHING: LogKeep = LogKeep {
    events: 0,
    age: Duration::ZERO,
};
const CID: u8 = 200;

impl Run<'_> {
    /// Spoils a key, tries something and mends the key again.
    pub async fn spoil(&mut self, room: usize, key: Spoilt, act: Act) -> Result<(), TestCaseError> {
        let must_fail = match (act, key) {
            // an id ahead of the room's is found by XADD only, before which a new epoch may have been opened
            (Act::Post, Spoilt::LogAhead) => {
                self.read(room, After::Start, Take::Newest, PageLimit::events(1), false)
                    .await?;
                self.state.rooms[room].tombstone == Tombstone::None
            }
            (Act::Post, _) | (Act::Read | Act::Delete | Act::TrimLog, Spoilt::Log | Spoilt::Meta) => true,
            (Act::Delete, Spoilt::Active) => true,
            (Act::TrimArchive, Spoilt::Archive | Spoilt::ArchiveSize) => true,
            _ => false,
        };
        if !must_fail {
            return Ok(());
        }
        let (name, keys) = (self.room(room), self.server.redis.keys);
        let partition = keys.partition(name.as_str());
        let spoilt = match key {
            Spoilt::Log | Spoilt::LogAhead => keys.log(&name),
            Spoilt::Meta => keys.meta(&name),
            Spoilt::Gone => keys.gone(&name),
            Spoilt::Archive => keys.archive(partition),
            Spoilt::Active => keys.active(partition),
            Spoilt::ArchiveSize => keys.archive_bytes(partition),
            Spoilt::Idempotency => keys.idempotency(&name, &UserId::new(USERS[0]).unwrap(), &CID.to_string()),
        };
        let saved = self.server.redis.read_archive(partition, 3).await.unwrap();
        let wire = &mut self.server.wire;
        let copy = checks::dump_key(wire, spoilt.as_bytes()).await;
        if key == Spoilt::ArchiveSize {
            wire.call(&["DEL", &spoilt]).await;
        }
        match key {
            Spoilt::LogAhead => wire.call(&["XADD", &spoilt, "99999999999999-1", "k", "message"]).await,
            Spoilt::Idempotency | Spoilt::ArchiveSize => wire.call(&["RPUSH", &spoilt, "x"]).await,
            _ => wire.call(&["SET", &spoilt, "x"]).await,
        };
        let before = wire.call(&["DEBUG", "DIGEST"]).await;
        let failed = self.attempt(room, key, act, &saved).await;
        let after = self.server.wire.call(&["DEBUG", "DIGEST"]).await;
        prop_assert!(matches!(failed, Some(RedisError::Refused(_))), "{:?}", failed);
        prop_assert_eq!(after, before, "a script that failed had written");
        let published = self.server.live.published().await;
        prop_assert!(
            published.is_empty(),
            "a script that failed had published {:?}",
            published
        );
        checks::restore_key(&mut self.server.wire, &copy).await;
        Ok(())
    }

    async fn attempt(&self, room: usize, key: Spoilt, act: Act, saved: &[ArchiveEntry]) -> Option<RedisError> {
        let (name, redis) = (self.room(room), &self.server.redis);
        match act {
            Act::Post => {
                let words = |cid| Words { cid, ..Words::MESSAGE };
                let mut drafts = vec![self.draft(room, &words(None)), self.draft(room, &words(Some(CID)))];
                if key == Spoilt::Gone {
                    // Plain messages have nothing to do with it.
                    let what = What::Delete(Target::Newest, Right::Author);
                    drafts.push(self.draft(room, &Words { what, ..Words::MESSAGE }));
                }
                redis.post(&name, &drafts, LIMITS).await.err()
            }
            Act::Read => redis
                .read_log(&name, After::Start, Take::Oldest, PageLimit::FULL, false)
                .await
                .err(),
            Act::Delete => redis.delete_room(&name).await.err(),
            Act::TrimLog => redis.trim_log(&name, u64::MAX, KEEP_NOTHING).await.err(),
            Act::TrimArchive => {
                let partition = redis.keys.partition(name.as_str());
                let saved: Vec<_> = saved.iter().collect();
                redis.trim_archive(partition, &saved).await.err()
            }
        }
    }
}
