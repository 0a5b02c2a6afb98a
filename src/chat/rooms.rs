//! Who belongs where: the verified room lists and the room checks.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::{Chat, ChatError};
use crate::model::{Identity, RoomId};
use crate::upstream::{RoomInfo, UpstreamError};

/// How long a room list counts as verified.
const LIST_TTL: Duration = Duration::from_secs(60);
/// How soon after one fetch another may follow.
const LIST_MIN_AGE: Duration = Duration::from_secs(5);

/// The rooms of one user, shared by the user's sockets on this node.
#[derive(Debug, Default)]
pub struct UserRooms {
    list: Mutex<List>,
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct List {
    rooms: HashSet<RoomId>,
    fetched: Option<Instant>,
    /// What was learnt about single rooms while a list was being fetched: it is newer than the list.
    learnt: Option<HashMap<RoomId, bool>>,
}

impl List {
    fn learn(&mut self, room: RoomId, belongs: bool) {
        if let Some(learnt) = &mut self.learnt {
            learnt.insert(room.clone(), belongs);
        }
        if belongs {
            self.rooms.insert(room);
        } else {
            self.rooms.remove(&room);
        }
    }
}

impl UserRooms {
    fn lock(&self) -> std::sync::MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the room is in the list, and whether the list is young enough to believe.
    fn knows(&self, room: &RoomId) -> (bool, bool) {
        let list = self.lock();
        (
            list.rooms.contains(room),
            list.fetched.is_some_and(|at| at.elapsed() <= LIST_TTL),
        )
    }

    /// The rooms as last fetched.
    pub fn rooms(&self) -> Vec<RoomId> {
        self.lock().rooms.iter().cloned().collect()
    }

    /// Whether the room is in the list, however old that is.
    pub fn has(&self, room: &RoomId) -> bool {
        self.lock().rooms.contains(room)
    }

    /// Whether the list was ever fetched.
    pub fn was_fetched(&self) -> bool {
        self.lock().fetched.is_some()
    }

    /// Whether the list is old enough that it should be fetched again.
    pub fn is_stale(&self) -> bool {
        self.lock().fetched.is_none_or(|at| at.elapsed() > LIST_TTL)
    }

    /// Adds a room that was checked on its own.
    pub fn add(&self, room: RoomId) {
        self.lock().learn(room, true);
    }

    /// Removes a room the user left for good.
    pub fn remove(&self, room: &RoomId) {
        self.lock().learn(room.clone(), false);
    }
}

/// Why there is no room list.
#[derive(Debug, thiserror::Error)]
pub enum RoomListError {
    /// The room service refuses the user.
    #[error("the room service refuses the user")]
    Refused,
    /// The room service is away.
    #[error("the room service is not available")]
    Unavailable,
}

impl Chat {
    /// The user's room list on this node, empty until it is fetched.
    pub fn user_rooms(&self, identity: &Identity) -> Arc<UserRooms> {
        let mut entry = self.lists.entry(identity.user.clone()).or_default();
        if let Some(list) = entry.value().upgrade() {
            return list;
        }
        let list = Arc::new(UserRooms::default());
        *entry.value_mut() = Arc::downgrade(&list);
        list
    }

    /// Forgets lists of users without a socket here.
    pub fn sweep_lists(&self) {
        self.lists.retain(|_, list| list.strong_count() > 0);
    }

    /// Users with a live socket here.
    pub fn connected_users(&self) -> Vec<crate::model::UserId> {
        self.lists
            .iter()
            .filter(|entry| entry.value().strong_count() > 0)
            .map(|entry| entry.key().clone())
            .collect()
    }

    /// Fetches the user's room list, unless that was done within the last seconds; one call for all who wait.
    /// Returns the rooms that are no longer in it.
    pub async fn fetch_rooms(&self, identity: &Identity, list: &UserRooms) -> Result<Vec<RoomId>, RoomListError> {
        let _single_flight = list.fetching.lock().await;
        if list.lock().fetched.is_some_and(|at| at.elapsed() < LIST_MIN_AGE) {
            return Ok(Vec::new());
        }
        list.lock().learnt = Some(HashMap::new());
        let answer = match self.list_calls.acquire().await {
            Ok(_permit) => self.upstream.user_rooms(identity).await,
            Err(_) => return Err(RoomListError::Unavailable),
        };
        let mut list = list.lock();
        let learnt = list.learnt.take().unwrap_or_default();
        let mut rooms: HashSet<RoomId> = match answer {
            Ok(rooms) => rooms.into_iter().collect(),
            Err(UpstreamError::Refused { .. }) => return Err(RoomListError::Refused),
            Err(error) => {
                tracing::warn!(%error, "room list not available");
                return Err(RoomListError::Unavailable);
            }
        };
        for (room, belongs) in learnt {
            if belongs {
                rooms.insert(room);
            } else {
                rooms.remove(&room);
            }
        }
        let gone = list.rooms.difference(&rooms).cloned().collect();
        *list = List {
            rooms,
            fetched: Some(Instant::now()),
            learnt: None,
        };
        Ok(gone)
    }

    /// Proves that the user belongs to the room: by a list of the last minute, or by asking now.
    pub async fn ensure_member(&self, identity: &Identity, list: &UserRooms, room: &RoomId) -> Result<(), ChatError> {
        if list.knows(room) == (true, true) {
            return Ok(());
        }
        self.check_member(identity, list, room, None).await.map(drop)
    }

    /// Asks the room service about the room and whether the user belongs to it.
    pub async fn check_member(
        &self,
        identity: &Identity,
        list: &UserRooms,
        room: &RoomId,
        created_at: Option<&RawValue>,
    ) -> Result<Arc<RoomInfo>, ChatError> {
        let info = self.check_room(room, created_at).await?;
        if !info.exist || !info.includes(identity) {
            list.remove(room);
            return Err(ChatError::NotMember);
        }
        list.add(room.clone());
        Ok(info)
    }

    /// The room service's answer about a room, at most 5 s old; one call for all who ask at once.
    pub async fn check_room(&self, room: &RoomId, created_at: Option<&RawValue>) -> Result<Arc<RoomInfo>, ChatError> {
        let key = (room.clone(), created_at.map(|raw| raw.get().to_owned()));
        let answer = self
            .checks
            .try_get_with(key, async {
                self.upstream.check_room(room, created_at).await.map(Arc::new)
            })
            .await;
        answer.map_err(|error| match &*error {
            UpstreamError::Refused { .. } => ChatError::Forged,
            _ => error.into(),
        })
    }

    /// The room has changed: what was checked before does not count any more.
    pub fn forget_checks(&self, room: &RoomId) {
        let room = room.clone();
        if let Err(error) = self
            .checks
            .invalidate_entries_if(move |(checked, _), _| *checked == room)
        {
            tracing::error!(%error, "room checks not forgotten");
        }
    }

    /// Whether the user owns the room, where the room service names an owner.
    pub async fn owns_room(&self, identity: &Identity, room: &RoomId) -> Result<bool, ChatError> {
        let info = self.check_room(room, None).await?;
        Ok(info.owner.as_deref() == Some(identity.user.as_str()))
    }

    /// Removes the user from the room at the room service; `true` when nobody is left.
    pub async fn leave_for_good(&self, identity: &Identity, room: &RoomId) -> Result<bool, ChatError> {
        let deleted = self
            .upstream
            .delete_room(room, identity)
            .await
            .map_err(|error| match error {
                UpstreamError::Refused { .. } => ChatError::NotMember,
                error => error.into(),
            })?;
        self.forget_checks(room);
        Ok(deleted)
    }
}
