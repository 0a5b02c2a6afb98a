//! Logs that give up what is archived and old enough.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use roomcast::model::unix_ms;
use roomcast::redis::{After, LogKeep, PageLimit, Take};

use super::model::TRIM_MAX;
use super::op::{Age, Op, Upto, Words};
use super::run::Run;

const HOUR: Duration = Duration::from_secs(3600);

impl Run<'_> {
    /// Trims a log, then looks where it begins now.
    pub async fn trim(&mut self, room: usize, archived: &Upto, keep: u32, age: &Age) -> Result<(), TestCaseError> {
        let places = &self.places[room];
        let archived = match archived {
            Upto::Near(index, off) if !places.is_empty() => {
                index.get(places).seq.saturating_add_signed(i64::from(*off))
            }
            Upto::Near(..) => 0,
            // the largest number there is
            Upto::Beyond => u64::MAX,
        };
        let age = match age {
            Age::Of(index, off) if !places.is_empty() => {
                let age = unix_ms().saturating_sub(index.get(places).ts);
                Duration::from_millis(age.saturating_add_signed(i64::from(*off)))
            }
            Age::Any | Age::Of(..) => Duration::ZERO,
            Age::Hour => HOUR,
            Age::Century => 100 * 365 * 24 * HOUR,
        };
        let keep = LogKeep { events: keep, age };
        let before = unix_ms();
        let removed = self
            .server
            .redis
            .trim_log(&self.server.room(room), archived, keep)
            .await;
        let clock = (before, unix_ms());
        prop_assert!(removed.is_ok(), "{:?}", removed);
        self.opened(room).await?;
        self.state.rooms[room].trim(archived, keep, clock, removed.unwrap())?;
        self.published(room, Vec::new()).await?;
        self.read(room, After::Start, Take::Oldest, PageLimit::events(1), false)
            .await
    }

    /// Forgets a room and gives it a log of two hours ago.
    pub async fn long_ago(&mut self, room: usize, count: u16) -> Result<(), TestCaseError> {
        self.pass_time(&Op::ForgetRoom { room }).await;
        self.read(room, After::Start, Take::Oldest, PageLimit::events(1), false)
            .await?;
        let draft = self.draft(room, &Words::MESSAGE);
        let keys = self.server.redis.keys;
        let (log, meta) = (keys.log(&self.server.rooms[room]), keys.meta(&self.server.rooms[room]));
        let wire = &mut self.server.wire;
        let begin = unix_ms() - 2 * 3_600_000;
        for number in 0..u64::from(count) {
            let event = self.state.rooms[room].plant(&draft, begin + number);
            let position = event.position.to_string();
            let fields = [
                "k",
                "message",
                "u",
                &event.user,
                "p",
                &event.epoch,
                "t",
                "",
                "e",
                &event.json,
            ];
            let command = [&["XADD", &log, &position][..], &fields].concat();
            wire.send(&command.iter().map(|word| word.as_bytes()).collect::<Vec<_>>())
                .await;
            self.ids[room].push(position);
            self.places[room].push(event.position);
        }
        for place in &self.places[room][self.places[room].len() - usize::from(count)..] {
            prop_assert_eq!(wire.read().await.text(), place.to_string());
        }
        let top = self.state.rooms[room].top;
        let (seq, ts) = (top.seq.to_string(), top.ts.to_string());
        wire.call(&["HSET", &meta, "seq", &seq, "ts", &ts]).await;
        wire.call(&["PEXPIRE", &log, &HOUR.as_millis().to_string()]).await;
        if u64::from(count) > TRIM_MAX {
            // more than one trim removes
            self.trim(room, &Upto::Beyond, 0, &Age::Hour).await?;
        }
        Ok(())
    }
}
