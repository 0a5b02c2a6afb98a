//! Bans in Redis: each at its scope, all of them in an index, and what was done to them in an audit stream.
//!
//! The ban at its scope is the one that counts. The index lets a node that starts, or that missed something, find all bans
//! that are in force; on a cluster the two are in different slots, so a ban may be in force a moment before it is listed.

use std::collections::HashMap;
use std::time::Duration;

use fred::prelude::*;
use fred::types::streams::XID;
use serde::{Deserialize, Serialize};

use super::control::Act;
use super::keys::{self, AUDIT, BANS};
use super::script::call;
use super::{Redis, RedisError};
use crate::model::{Ban, Origin, Scope, UnixMs};

/// Entries of the audit stream.
const AUDIT_MAX: i64 = 10_000;
/// Bans looked up by one pipeline, entries of the audit stream by one call.
const BATCH: usize = 500;

/// How long a ban shall last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term<'a> {
    /// By the next of these steps; a ban in force stays as it is.
    Ladder(&'a [Duration]),
    /// As long as this; a ban in force is replaced.
    For(Duration),
}

/// What was done, for the audit stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Audit {
    /// When, Unix ms.
    pub at: UnixMs,
    /// `ban`, `unban`, `kick` or `revoke`; of the queue of questions `pause`, `resume`, `retry` or `drop`.
    pub act: String,
    /// Whom it hit.
    pub scope: String,
    /// Why.
    pub reason: String,
    /// Who did it.
    pub actor: String,
}

/// The bans of the index, and the server's time.
#[derive(Debug)]
pub struct BanIndex {
    /// Scope and end of each.
    pub bans: Vec<(Scope, UnixMs)>,
    /// The server's time, Unix ms.
    pub now: UnixMs,
}

/// A ban as a script returns it.
pub(super) type RawBan = Option<Vec<String>>;

pub(super) fn read_ban(scope: &Scope, raw: RawBan) -> Option<Ban> {
    let [reason, origin, actor, since, until, level] = <[String; 6]>::try_from(raw?).ok()?;
    Some(Ban {
        scope: scope.clone(),
        reason,
        origin: Origin::parse(&origin)?,
        actor,
        since: since.parse().ok()?,
        until: until.parse().ok()?,
        level: level.parse().ok()?,
    })
}

/// The steps of a ladder as scripts read them.
pub(super) fn ladder(steps: &[Duration]) -> String {
    let steps: Vec<String> = steps.iter().map(|step| step.as_millis().to_string()).collect();
    steps.join(",")
}

fn ban_keys(scope: &Scope) -> Vec<String> {
    vec![keys::ban(scope), keys::ban_level(scope)]
}

impl Redis {
    /// Bans a scope; returns the ban in force, and whether it is new. Nobody hears of it before [`Self::announce_ban`].
    pub async fn set_ban(
        &self,
        scope: &Scope,
        reason: &str,
        actor: &str,
        term: Term<'_>,
    ) -> Result<(Ban, bool), RedisError> {
        let (steps, length) = match term {
            Term::Ladder(steps) => (ladder(steps), 0),
            Term::For(length) => (String::new(), super::ms(length)),
        };
        let args = vec![
            reason.into(),
            actor.into(),
            steps.into(),
            Origin::Admin.as_str().into(),
            length.into(),
        ];
        self.call_ban_set(scope, args)
            .await
            .and_then(|(ban, new)| Ok((ban.ok_or(RedisError::Unexpected("ban_set"))?, new)))
    }

    /// Writes a ban once more that Redis may have lost, unless it is over or a longer one is in force; tells whether it was
    /// missing.
    pub async fn restore_ban(&self, ban: &Ban) -> Result<bool, RedisError> {
        let until = i64::try_from(ban.until).unwrap_or(i64::MAX);
        let args = vec![
            ban.reason.as_str().into(),
            ban.actor.as_str().into(),
            "".into(),
            ban.origin.as_str().into(),
            (-until).into(),
        ];
        self.call_ban_set(&ban.scope, args).await.map(|(_, new)| new)
    }

    async fn call_ban_set(&self, scope: &Scope, args: Vec<Value>) -> Result<(Option<Ban>, bool), RedisError> {
        let (new, _now, ban): (i64, UnixMs, RawBan) =
            call(&self.scripts.ban_set, self.any()?, ban_keys(scope), args).await?;
        Ok((read_ban(scope, ban), new == 1))
    }

    /// Ends the ban of a scope and forgets its ladder and strikes; tells whether one was in force.
    pub async fn clear_ban(&self, scope: &Scope) -> Result<bool, RedisError> {
        let mut key_names = ban_keys(scope);
        key_names.push(keys::strikes(scope));
        let (was, _now): (i64, UnixMs) = call(&self.scripts.ban_clear, self.any()?, key_names, vec![]).await?;
        Ok(was == 1)
    }

    /// Lists a ban, notes it in the audit stream and tells every node.
    pub async fn announce_ban(&self, ban: &Ban) -> Result<(), RedisError> {
        self.list_ban(ban).await?;
        self.publish_act(&Act::Ban { ban: ban.clone() }).await?;
        let (scope, reason) = (ban.scope.to_string(), ban.reason.clone());
        self.audit("ban", scope, reason, &ban.actor).await
    }

    /// Puts a ban into the index.
    pub async fn list_ban(&self, ban: &Ban) -> Result<(), RedisError> {
        let entry = (ban.until as f64, ban.scope.to_string());
        let () = self.any()?.zadd(BANS, None, None, false, false, entry).await?;
        Ok(())
    }

    /// Takes the ban of a scope off the index, notes it in the audit stream and tells every node.
    pub async fn announce_unban(&self, scope: &Scope, actor: &str) -> Result<(), RedisError> {
        let () = self.any()?.zrem(BANS, scope.to_string()).await?;
        self.publish_act(&Act::Unban { scope: scope.clone() }).await?;
        self.audit("unban", scope.to_string(), String::new(), actor).await
    }

    /// The ban of a scope, if one is in force.
    pub async fn ban(&self, scope: &Scope) -> Result<Option<Ban>, RedisError> {
        Ok(self.bans_of(std::slice::from_ref(scope)).await?.pop())
    }

    /// The bans in force of these scopes, by this machine's clock.
    pub async fn bans_of(&self, scopes: &[Scope]) -> Result<Vec<Ban>, RedisError> {
        self.bans_at(scopes, crate::model::unix_ms()).await
    }

    /// The bans of these scopes that are in force at `now`.
    pub async fn bans_at(&self, scopes: &[Scope], now: UnixMs) -> Result<Vec<Ban>, RedisError> {
        const FIELDS: [&str; 6] = ["reason", "origin", "actor", "since", "until", "level"];
        let mut bans = Vec::with_capacity(scopes.len());
        for batch in scopes.chunks(BATCH) {
            let pipeline = self.any()?.pipeline();
            for scope in batch {
                let () = pipeline.hmget(keys::ban(scope), FIELDS.to_vec()).await?;
            }
            let answers: Vec<Vec<Option<String>>> = pipeline.all().await?;
            let found = batch
                .iter()
                .zip(answers)
                .filter_map(|(scope, fields)| read_ban(scope, fields.into_iter().collect()));
            bans.extend(found.filter(|ban| ban.until > now));
        }
        Ok(bans)
    }

    /// Every ban of the index that is in force by the server's clock.
    pub async fn ban_index(&self) -> Result<BanIndex, RedisError> {
        let answer: Vec<String> = call(&self.scripts.ban_index, self.any()?, vec![BANS.to_owned()], vec![]).await?;
        let unexpected = || RedisError::Unexpected("ban_index");
        let (now, listed) = answer.split_first().ok_or_else(unexpected)?;
        let ban = |pair: &[String]| {
            let [scope, until] = pair else { return None };
            Some((scope.parse().ok()?, until.parse().ok()?))
        };
        Ok(BanIndex {
            bans: listed.chunks(2).filter_map(ban).collect(),
            now: now.parse().map_err(|_| unexpected())?,
        })
    }

    /// Notes an act in the audit stream.
    pub async fn audit(&self, act: &str, scope: String, reason: String, actor: &str) -> Result<(), RedisError> {
        let fields: Vec<(&str, &str)> = vec![("act", act), ("scope", &scope), ("reason", &reason), ("actor", actor)];
        let _id: String = self
            .any()?
            .xadd(AUDIT, false, ("MAXLEN", "~", AUDIT_MAX), XID::Auto, fields)
            .await?;
        Ok(())
    }

    /// The newest acts of the audit stream, the newest first; `scope` restricts them to one.
    pub async fn audits(&self, scope: Option<&Scope>, limit: usize) -> Result<Vec<Audit>, RedisError> {
        let scope = scope.map(ToString::to_string);
        let mut audits: Vec<Audit> = Vec::new();
        let mut before = "+".to_owned();
        while audits.len() < limit {
            let entries: Vec<(String, HashMap<String, String>)> =
                self.any()?.xrevrange(AUDIT, before, "-", Some(BATCH as u64)).await?;
            let Some((oldest, _)) = entries.last() else { break };
            before = format!("({oldest}");
            let wanted = entries.into_iter().filter_map(read_audit);
            audits.extend(wanted.filter(|audit| scope.as_ref().is_none_or(|scope| audit.scope == *scope)));
        }
        audits.truncate(limit);
        Ok(audits)
    }
}

fn read_audit((id, mut fields): (String, HashMap<String, String>)) -> Option<Audit> {
    let mut field = |name| fields.remove(name).unwrap_or_default();
    Some(Audit {
        at: id.split('-').next()?.parse().ok()?,
        act: field("act"),
        scope: field("scope"),
        reason: field("reason"),
        actor: field("actor"),
    })
}
