//! The queue of questions as it stands in Redis.

use std::collections::{BTreeMap, BTreeSet};

use super::wire::{Answer, Wire};

/// The queue's keys.
#[derive(Debug)]
pub struct Found {
    pub lists: BTreeMap<String, Vec<String>>,
    pub jobs: BTreeMap<String, (String, String)>,
    pub open: BTreeSet<String>,
    pub delayed: BTreeSet<String>,
    pub lag: Answer,
    pub pending: Answer,
}

impl Found {
    pub async fn read(wire: &mut Wire) -> Self {
        let (mut lists, mut jobs) = (BTreeMap::new(), BTreeMap::new());
        for key in texts(wire.call(&["KEYS", "rc:{gpt}:*"]).await) {
            if let Some(job) = key.strip_prefix("rc:{gpt}:job:") {
                let fields = texts(wire.call(&["HMGET", &key, "gen", "state"]).await);
                jobs.insert(job.to_owned(), (fields[0].clone(), fields[1].clone()));
            } else if key.starts_with("rc:{gpt}:room:") || key.starts_with("rc:{gpt}:user:") {
                let list = texts(wire.call(&["LRANGE", &key, "0", "-1"]).await);
                lists.insert(key, list);
            }
        }
        let set = async |wire: &mut Wire, key: &str| {
            let members = wire.call(&["ZRANGE", key, "0", "-1"]).await;
            texts(members).into_iter().collect::<BTreeSet<String>>()
        };
        let (open, delayed) = (set(wire, "rc:{gpt}:open").await, set(wire, "rc:{gpt}:delayed").await);
        let groups = wire.call(&["XINFO", "GROUPS", "rc:{gpt}:ready"]).await.list();
        let group = groups.into_iter().next().unwrap().list();
        let field = |name: &str| {
            let at = group.iter().step_by(2).position(|field| field.text() == name);
            group[2 * at.unwrap() + 1].clone()
        };
        Self {
            lists,
            jobs,
            open,
            delayed,
            lag: field("lag"),
            pending: field("pending"),
        }
    }
}

fn texts(answer: Answer) -> Vec<String> {
    answer.list().iter().map(Answer::text).collect()
}
