//! What only time would do, done at once.

use roomcast::model::{UserId, unix_ms};

use super::model::Tombstone;
use super::op::{Op, USERS};
use super::run::Run;

impl Run<'_> {
    /// Lets something end that would have lasted.
    pub async fn pass_time(&mut self, op: &Op) {
        let keys = self.server.redis.keys;
        let wire = &mut self.server.wire;
        match op {
            Op::AgeTombstone { room } => {
                let model = &mut self.state.rooms[*room];
                if model.tombstone == Tombstone::Fresh {
                    let past = (unix_ms() - 11_000).to_string();
                    wire.call(&["HSET", &keys.meta(&self.server.rooms[*room]), "deleted", &past])
                        .await;
                    model.tombstone = Tombstone::Aged;
                }
            }
            Op::ExpireLog { room } => {
                wire.call(&["DEL", &keys.log(&self.server.rooms[*room])]).await;
                self.state.rooms[*room].log.clear();
            }
            Op::ForgetRoom { room } => {
                let name = &self.server.rooms[*room];
                wire.call(&["DEL", &keys.log(name), &keys.meta(name), &keys.gone(name)])
                    .await;
                for user in USERS {
                    for cid in 0..5 {
                        let user = UserId::new(user).unwrap();
                        wire.call(&["DEL", &keys.idempotency(name, &user, &cid.to_string())])
                            .await;
                    }
                }
                self.state.rooms[*room] = Default::default();
            }
            Op::ClockGoesBack { room } => {
                let model = &mut self.state.rooms[*room];
                if model.top.seq > 0 {
                    model.top.ts = model.top.ts.max(unix_ms()) + 60_000;
                    let ts = model.top.ts.to_string();
                    wire.call(&["HSET", &keys.meta(&self.server.rooms[*room]), "ts", &ts])
                        .await;
                }
            }
            other => panic!("time does not do {other:?}"),
        }
    }
}
