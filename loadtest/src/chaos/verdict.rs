//! The end of a run: everything is healed and quiet; what stands in Redis and in the archive is the truth.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use serde_json::Value;

use super::child::wait_until;
use super::crowd::Crowd;
use super::deploy::Deployment;
use super::logs::Logs;
use crate::checker::{Entry, LostTail, Report};

/// How long writers may take to get their last answers.
const CLOSE_MAX: Duration = Duration::from_secs(30);
/// How long the last events may take to reach everybody.
const SEEN_MAX: Duration = Duration::from_secs(10);
/// How long the archive may take to drain.
const ARCHIVE_MAX: Duration = Duration::from_secs(30);

/// Lets everything come to rest and judges it; whatever the checker cannot see goes to the findings.
pub async fn judge(deployment: &Deployment, crowd: &Crowd, logs: &mut Logs, lost_tail: LostTail) -> io::Result<Report> {
    let history = &crowd.history;
    if !crowd.close(CLOSE_MAX).await {
        history.find(format!(
            "a writer has no final answer {CLOSE_MAX:?} after everything was healed"
        ));
    }
    logs.gather(&deployment.redis).await?;
    for behind in crowd.wait_seen(&logs.tops(), SEEN_MAX).await {
        history.find(format!("{behind}, {SEEN_MAX:?} after the last message"));
    }
    // Writers that had no answer may have gone on meanwhile.
    logs.gather(&deployment.redis).await?;
    for (room, log) in &logs.rooms {
        let mut archived = Vec::new();
        let drained = wait_until(ARCHIVE_MAX, async || {
            archived = deployment.archived(room).await.unwrap_or_default();
            let places: HashSet<_> = archived.iter().filter_map(place).collect();
            log.iter()
                .all(|entry| places.contains(&(entry.epoch.as_str(), entry.seq)))
        });
        if !drained.await {
            history.find(format!("{room}: the archive is not complete within {ARCHIVE_MAX:?}"));
        }
        let mut checker = history.checker();
        checker.log(room, log.iter().map(super::logs::LogEntry::entry));
        checker.archive(room, archived.iter().filter_map(entry));
    }
    let mut checker = history.checker();
    for room in &history.rooms {
        if !logs.rooms.contains_key(&room.name) {
            checker.log(&room.name, []);
        }
    }
    checker.allow_lost_tail(lost_tail);
    Ok(checker.finish())
}

fn place(message: &Value) -> Option<(&str, u64)> {
    Some((message["epoch"].as_str()?, message["seq"].as_u64()?))
}

fn entry(message: &Value) -> Option<Entry<'_>> {
    let (epoch, seq) = place(message)?;
    Some(Entry {
        epoch,
        seq,
        id: message["id"].as_str()?,
        key: message["message"].as_str()?.split(' ').next(),
    })
}
