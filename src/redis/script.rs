//! The Lua scripts, and the one way to call them.

use fred::prelude::*;
use fred::types::scripts::Script;

use super::client::Purpose;
use super::error::is_redirection;
use super::{Redis, RedisError};
use crate::model::RoomId;

/// Redirections followed by one call: a slot moves once, and its new owner may be replaced at that moment.
const MOVES_MAX: u32 = 2;

macro_rules! source {
    ($name:literal) => {
        include_str!(concat!("scripts/", $name, ".lua"))
    };
}

/// Every script with its hash.
pub(super) struct Scripts {
    pub post: Script,
    pub read: Script,
    pub trim_log: Script,
    pub trim_archive: Script,
    pub delete_room: Script,
    pub token_requests: Script,
    pub ban_set: Script,
    pub ban_clear: Script,
    pub ban_index: Script,
    pub strike: Script,
    pub admit: Script,
    pub lease: Script,
    pub gcra_take: Script,
    pub gpt_enqueue: Script,
    pub gpt_claim: Script,
    pub gpt_beat: Script,
    pub gpt_retry: Script,
    pub gpt_due: Script,
    pub gpt_finish: Script,
    pub gpt_part: Script,
    pub gpt_fail: Script,
    pub gpt_again: Script,
    pub gpt_pause: Script,
    pub gpt_resume: Script,
    pub gpt_worker: Script,
    pub gpt_settle: Script,
    pub reap: Script,
}

impl Scripts {
    pub fn new() -> Self {
        Self {
            post: Script::from_lua(concat!(source!("epoch"), source!("post"))),
            read: Script::from_lua(concat!(source!("epoch"), source!("read"))),
            trim_log: Script::from_lua(concat!(source!("epoch"), source!("trim_log"))),
            trim_archive: Script::from_lua(source!("trim_archive")),
            delete_room: Script::from_lua(concat!(source!("epoch"), source!("delete_room"))),
            token_requests: Script::from_lua(concat!(source!("ban"), source!("token_requests"))),
            ban_set: Script::from_lua(concat!(source!("ban"), source!("ban_set"))),
            ban_clear: Script::from_lua(concat!(source!("ban"), source!("ban_clear"))),
            ban_index: Script::from_lua(concat!(source!("ban"), source!("ban_index"))),
            strike: Script::from_lua(concat!(source!("ban"), source!("strike"))),
            admit: Script::from_lua(concat!(source!("ban"), source!("gcra"), source!("admit"))),
            lease: Script::from_lua(concat!(source!("ban"), source!("lease"))),
            gpt_enqueue: Script::from_lua(concat!(source!("gpt"), source!("gpt_enqueue"))),
            gpt_claim: Script::from_lua(concat!(source!("gpt"), source!("gpt_claim"))),
            gpt_beat: Script::from_lua(concat!(source!("gpt"), source!("gpt_beat"))),
            gpt_retry: Script::from_lua(concat!(source!("gpt"), source!("gpt_retry"))),
            gpt_due: Script::from_lua(concat!(source!("gpt"), source!("gpt_due"))),
            gpt_finish: Script::from_lua(concat!(source!("gpt"), source!("gpt_finish"))),
            gpt_part: Script::from_lua(source!("gpt_part")),
            gpt_fail: Script::from_lua(source!("gpt_fail")),
            gpt_settle: Script::from_lua(concat!(source!("gpt"), source!("gpt_settle"))),
            gcra_take: Script::from_lua(concat!(source!("ban"), source!("gcra"), source!("gcra_take"))),
            gpt_again: Script::from_lua(source!("gpt_again")),
            gpt_pause: Script::from_lua(concat!(source!("gpt"), source!("gpt_pause"))),
            gpt_resume: Script::from_lua(concat!(source!("gpt"), source!("gpt_resume"))),
            gpt_worker: Script::from_lua(concat!(source!("gpt"), source!("gpt_worker"))),
            reap: Script::from_lua(source!("reap")),
        }
    }
}

/// Calls a script that belongs to no room.
///
/// A cluster node that does not own the keys refuses without doing anything, and the answer brings fred's routing up to
/// date: the call is sent once more, before anything that its caller says later.
pub(super) async fn call<R: FromValue>(
    script: &Script,
    client: &Client,
    keys: Vec<String>,
    args: Vec<Value>,
) -> Result<R, RedisError> {
    let mut moves = 0;
    loop {
        match send(script, client, keys.clone(), args.clone()).await {
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
        let (answer, _) = self.call_for(room, Purpose::Other, script, keys, args).await?;
        Ok(answer)
    }

    /// As [`Self::call_for_room`], on a connection for this purpose; returns it too.
    pub(super) async fn call_for<R: FromValue>(
        &self,
        room: &RoomId,
        purpose: Purpose,
        script: &Script,
        keys: Vec<String>,
        args: Vec<Value>,
    ) -> Result<(R, Client), RedisError> {
        let Some(primaries) = &self.primaries else {
            let client = self.for_room(room, purpose)?;
            return Ok((call(script, &client, keys, args).await?, client));
        };
        let mut moves = 0;
        loop {
            let client = self.for_room(room, purpose)?;
            match send(script, &client, keys.clone(), args.clone()).await {
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
async fn send<R: FromValue>(script: &Script, client: &Client, keys: Vec<String>, args: Vec<Value>) -> Result<R, Error> {
    let result = client.evalsha(script.sha1().clone(), keys.clone(), args.clone()).await;
    match (&result, script.lua()) {
        (Err(error), Some(lua)) if error.details().starts_with("NOSCRIPT") => {
            client.eval(lua.clone(), keys, args).await
        }
        _ => result,
    }
}
