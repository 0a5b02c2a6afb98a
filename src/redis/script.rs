//! The Lua scripts, and the one way to call them.

use std::time::Instant;

use fred::prelude::*;
use fred::types::scripts::Script as Source;
use prometheus::Histogram;

use super::client::Purpose;
use super::error::is_redirection;
use super::{Redis, RedisError};
use crate::model::RoomId;
use crate::telemetry::{Labelled, Metrics};

/// Redirections followed by one call: a slot moves once, and its new owner may be replaced at that moment.
const MOVES_MAX: u32 = 2;

macro_rules! source {
    ($name:ident) => {
        include_str!(concat!("scripts/", stringify!($name), ".lua"))
    };
}

/// Declares the scripts: the name of its file, and the preludes that come before it.
macro_rules! scripts {
    ($( $name:ident $(after $($prelude:ident)+)?; )+) => {
        /// Every script with its hash.
        pub(super) struct Scripts { $( pub $name: Script, )+ }

        impl Scripts {
            /// The scripts; calls are measured where there is something to measure them with.
            pub fn new(metrics: Option<&Metrics>) -> Self {
                Self {
                    $( $name: Script::new(
                        stringify!($name),
                        concat!($( $( source!($prelude), )+ )? source!($name)),
                        metrics,
                    ), )+
                }
            }
        }
    };
}

scripts! {
    post after epoch;
    read after epoch;
    trim_log after epoch;
    trim_archive;
    delete_room after epoch;
    token_requests after ban;
    ban_set after ban;
    ban_clear after ban;
    ban_index after ban;
    strike after ban;
    admit after ban gcra;
    lease after ban;
    gpt_enqueue after gpt;
    gpt_take after gpt gpt_claims;
    gpt_claim after gpt gpt_claims;
    gpt_beat after gpt;
    gpt_cancel;
    gpt_retry after gpt;
    gpt_due after gpt;
    gpt_finish after gpt;
    gpt_part;
    gpt_fail;
    gpt_again;
    gpt_pause after gpt;
    gpt_resume after gpt;
    gpt_worker after gpt;
    gpt_settle after gpt;
    gpt_summary;
    gpt_figures after gpt;
    gcra_take after ban gcra;
    reap;
}

/// A script.
pub(super) struct Script {
    source: Source,
    meter: Option<Meter>,
}

/// What is measured of one.
struct Meter {
    duration: Histogram,
    errors: Labelled<1>,
}

impl Script {
    fn new(name: &'static str, text: &'static str, metrics: Option<&Metrics>) -> Self {
        let meter = |metrics: &Metrics| Meter {
            duration: metrics.redis_call_duration_seconds.of(name),
            errors: metrics.redis_errors_total.clone(),
        };
        Self {
            source: Source::from_lua(text),
            meter: metrics.map(meter),
        }
    }

    fn note(&self, started: Instant, error: Option<&Error>) {
        let Some(meter) = &self.meter else { return };
        meter.duration.observe(started.elapsed().as_secs_f64());
        if let Some(error) = error {
            meter.errors.inc([RedisError::from(error.clone()).kind()]);
        }
    }
}

/// Keys and arguments of a call.
pub(super) type Asked = (Vec<String>, Vec<Value>);

/// Calls a script that belongs to no room.
pub(super) async fn call<R: FromValue>(
    script: &Script,
    client: &Client,
    keys: Vec<String>,
    args: Vec<Value>,
) -> Result<R, RedisError> {
    call_with(script, client, || (keys.clone(), args.clone())).await
}

/// The same, for what is made anew when it must be sent again.
///
/// A cluster node that does not own the keys refuses without doing anything, and the answer brings fred's routing up to
/// date: the call is sent once more, before anything that its caller says later.
async fn call_with<R: FromValue>(script: &Script, client: &Client, asked: impl Fn() -> Asked) -> Result<R, RedisError> {
    let mut moves = 0;
    loop {
        match send(script, client, &asked).await {
            Err(error) if is_redirection(&error) && moves < MOVES_MAX => moves += 1,
            result => return Ok(result?),
        }
    }
}

impl Redis {
    /// Calls a script of a room; on a cluster at the primary that has the room, and where it has moved to.
    pub(super) async fn call_for_room<R: FromValue>(
        &self,
        room: &RoomId,
        script: &Script,
        keys: Vec<String>,
        args: Vec<Value>,
    ) -> Result<R, RedisError> {
        let asked = || (keys.clone(), args.clone());
        let (answer, _) = self.call_for(room, Purpose::Other, script, asked).await?;
        Ok(answer)
    }

    /// As [`Self::call_for_room`], on a connection for this purpose; returns it too.
    pub(super) async fn call_for<R: FromValue>(
        &self,
        room: &RoomId,
        purpose: Purpose,
        script: &Script,
        asked: impl Fn() -> Asked,
    ) -> Result<(R, Client), RedisError> {
        let Some(primaries) = &self.primaries else {
            let client = self.for_room(room, purpose)?;
            return Ok((call_with(script, &client, asked).await?, client));
        };
        let mut moves = 0;
        loop {
            let client = self.for_room(room, purpose)?;
            match send(script, &client, &asked).await {
                Ok(answer) => return Ok((answer, client)),
                Err(error) if moves < MOVES_MAX && primaries.follow(&error, self.lane(room), purpose).await => {
                    moves += 1
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Sends a script's hash, or its text where the server does not have it. fred's own `evalsha_with_reload` would load it
/// into a cluster node of its choice.
async fn send<R: FromValue>(script: &Script, client: &Client, asked: &impl Fn() -> Asked) -> Result<R, Error> {
    let started = Instant::now();
    let sha = script.source.sha1().clone();
    let (keys, args) = asked();
    let mut result = client.evalsha(sha, keys, args).await;
    if let (Err(error), Some(lua)) = (&result, script.source.lua())
        && error.details().starts_with("NOSCRIPT")
    {
        let (keys, args) = asked();
        result = client.eval(lua.clone(), keys, args).await;
    }
    script.note(started, result.as_ref().err());
    result
}
