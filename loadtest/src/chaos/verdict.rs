//! The end of a run: everything is healed and quiet; what stands in Redis and in the archive is the truth.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use serde_json::Value;

use super::asker::Present;
use super::crowd::Crowd;
use super::history::MemberState;
use crate::checker::{Entry, LostTail, Report};
use crate::deployment::Deployment;
use crate::deployment::child::wait_until;
use crate::deployment::logs::{LogEntry, Logs};

/// How long writers may take to get their last answers.
const CLOSE_MAX: Duration = Duration::from_secs(30);
/// How long the last events may take to reach everybody.
const SEEN_MAX: Duration = Duration::from_secs(10);
/// How long the archive may take to drain.
const ARCHIVE_MAX: Duration = Duration::from_secs(30);
/// How long traces of dead nodes may stay: nobody reaps before Redis has been reachable for a minute.
const GHOSTS_MAX: Duration = Duration::from_secs(80);

/// Lets everything come to rest and judges it; whatever the checker cannot see goes to the findings.
pub async fn judge(
    deployment: &Deployment,
    crowd: &Crowd,
    others: &Present,
    logs: &mut Logs,
    lost_tail: LostTail,
) -> io::Result<Report> {
    let history = &crowd.history;
    if !crowd.close(CLOSE_MAX).await {
        history.find(format!(
            "a writer has no final answer {CLOSE_MAX:?} after everything was healed"
        ));
    }
    logs.gather(&deployment.redis, |room| crowd.talks_in(room)).await?;
    for behind in crowd.wait_seen(&logs.tops(), SEEN_MAX).await {
        history.find(format!("{behind}, {SEEN_MAX:?} after the last message"));
    }
    // Writers that had no answer may have gone on meanwhile.
    logs.gather(&deployment.redis, |room| crowd.talks_in(room)).await?;
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
        checker.log(room, log.iter().map(LogEntry::entry));
        checker.archive(room, archived.iter().filter_map(entry));
    }
    for ghosts in find_ghosts(deployment, crowd, others).await {
        history.find(format!("{ghosts}, {GHOSTS_MAX:?} after everything was healed"));
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

/// What the legacy sets hold that is not there, and what they lack, when they had the time to become true.
async fn find_ghosts(deployment: &Deployment, crowd: &Crowd, others: &Present) -> Vec<String> {
    let mut wrong = Vec::new();
    wait_until(GHOSTS_MAX, async || {
        wrong.clear();
        for (index, room) in crowd.history.rooms.iter().enumerate() {
            let sids = crowd.history.members.iter().filter(|member| member.room == index);
            let mut there: Vec<String> = sids.map(MemberState::sid).filter(|sid| !sid.is_empty()).collect();
            there.sort();
            for key in [
                format!("joinedRoomUsers:{}", room.name),
                format!("roomUsers:{}", room.name),
            ] {
                let mut found = deployment.redis.members(&key).await.unwrap_or_default();
                // Those belong to the room, and never join it.
                found.retain(|sid| !others.has(sid));
                found.sort();
                if found != there {
                    wrong.push(format!("{key} holds {found:?} instead of {there:?}"));
                }
            }
        }
        wrong.is_empty()
    })
    .await;
    wrong
}
