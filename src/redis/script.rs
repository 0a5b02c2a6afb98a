//! The Lua scripts, and the one way to call them.

use fred::prelude::*;
use fred::types::scripts::Script;

use super::RedisError;
use super::error::is_redirection;

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
    pub delete_room: Script,
    pub token_requests: Script,
    pub block: Script,
    pub strike: Script,
    pub reap: Script,
}

impl Scripts {
    pub fn new() -> Self {
        Self {
            post: Script::from_lua(concat!(source!("epoch"), source!("post"))),
            read: Script::from_lua(concat!(source!("epoch"), source!("read"))),
            delete_room: Script::from_lua(concat!(source!("epoch"), source!("delete_room"))),
            token_requests: Script::from_lua(source!("token_requests")),
            block: Script::from_lua(source!("block")),
            strike: Script::from_lua(source!("strike")),
            reap: Script::from_lua(source!("reap")),
        }
    }
}

/// Calls a script, sending its text where the server does not have it.
///
/// A cluster node that does not own the keys refuses without doing anything, and the answer brings fred's routing up to
/// date: the call is sent once more, before anything that its caller says later. fred's own `evalsha_with_reload` loads the
/// script into a node of its choice.
pub(super) async fn call<R: FromValue>(
    script: &Script,
    client: &Client,
    keys: Vec<String>,
    args: Vec<Value>,
) -> Result<R, RedisError> {
    let mut moves = 0;
    loop {
        let mut result: Result<R, Error> = client.evalsha(script.sha1().clone(), keys.clone(), args.clone()).await;
        if let (Err(error), Some(lua)) = (&result, script.lua())
            && error.details().starts_with("NOSCRIPT")
        {
            result = client.eval(lua.clone(), keys.clone(), args.clone()).await;
        }
        match result {
            Err(error) if is_redirection(&error) && moves < MOVES_MAX => moves += 1,
            result => return Ok(result?),
        }
    }
}
