//! The Lua scripts, and the one way to call them.

use fred::prelude::*;
use fred::types::scripts::Script;

use super::RedisError;

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
    pub block: Script,
    pub strike: Script,
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
            token_requests: Script::from_lua(source!("token_requests")),
            block: Script::from_lua(source!("block")),
            strike: Script::from_lua(source!("strike")),
            reap: Script::from_lua(source!("reap")),
        }
    }
}

/// Calls a script, loading it where the server does not have it.
pub(super) async fn call<R: FromValue>(
    script: &Script,
    client: &Client,
    keys: Vec<String>,
    args: Vec<Value>,
) -> Result<R, RedisError> {
    Ok(script.evalsha_with_reload(client, keys, args).await?)
}
