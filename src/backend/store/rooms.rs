//! Rooms and who belongs to them.

use serde_json::json;

use super::Store;
use super::db::over_rows;

/// A user in a room.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Participant {
    pub nickname: String,
    pub platformid: String,
}

/// A room that exists. `created_at` is Unix milliseconds, where its creator gave one.
#[derive(Debug, Clone)]
pub struct Room {
    pub created_at: Option<i64>,
    pub owner: Option<String>,
    pub gpt_prompt: Option<String>,
    pub participants: Vec<Participant>,
}

/// What became of a wish to create a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    Created,
    /// It was there; missing participants were added.
    Completed,
    /// It was there with another creation time.
    Contradiction,
}

impl Store {
    /// The room, unless it never was or everyone left.
    pub async fn room(&self, room_id: &str) -> Result<Option<Room>, sqlx::Error> {
        let mut link = self.read().await?;
        let sql = "SELECT created_at, owner, gpt_prompt FROM rooms WHERE room_id = $1 AND gone = 0";
        let Some(row) = link.first(sql, &[room_id.into()]).await? else {
            return Ok(None);
        };
        let sql = "SELECT nickname, platformid FROM members WHERE room_id = $1 ORDER BY platformid";
        let participants = link
            .rows(sql, &[room_id.into()])
            .await?
            .iter()
            .map(|row| {
                Ok(Participant {
                    nickname: row.text(0)?,
                    platformid: row.text(1)?,
                })
            })
            .collect::<Result<_, sqlx::Error>>()?;
        Ok(Some(Room {
            created_at: row.maybe_int(0)?,
            owner: row.maybe_text(1)?,
            gpt_prompt: row.maybe_text(2)?,
            participants,
        }))
    }

    /// The rooms of a user, at most `limit`.
    pub async fn rooms_of(&self, platformid: &str, limit: i64) -> Result<Vec<String>, sqlx::Error> {
        let sql = "SELECT room_id FROM members WHERE platformid = $1 ORDER BY room_id LIMIT $2";
        let rows = self.read().await?.rows(sql, &[platformid.into(), limit.into()]).await?;
        rows.iter().map(|row| row.text(0)).collect()
    }

    /// Whether the user belongs to the room.
    pub async fn is_member(&self, room_id: &str, platformid: &str) -> Result<bool, sqlx::Error> {
        let sql = "SELECT platformid FROM members WHERE room_id = $1 AND platformid = $2";
        Ok(self
            .read()
            .await?
            .first(sql, &[room_id.into(), platformid.into()])
            .await?
            .is_some())
    }

    /// Creates a room, or adds the participants it lacks.
    pub async fn create_room(
        &self,
        room_id: &str,
        created_at: Option<i64>,
        owner: Option<&str>,
        gpt_prompt: Option<&str>,
        participants: &[Participant],
    ) -> Result<Creation, sqlx::Error> {
        let mut link = self.write().await?;
        let created = link
            .execute(
                "INSERT INTO rooms (room_id, created_at, owner, gpt_prompt) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (room_id) DO UPDATE
                     SET gone = 0, created_at = excluded.created_at, owner = excluded.owner,
                         gpt_prompt = excluded.gpt_prompt WHERE rooms.gone = 1",
                &[room_id.into(), created_at.into(), owner.into(), gpt_prompt.into()],
            )
            .await?
            > 0;
        if !created {
            let contradicted = link
                .first(
                    "SELECT room_id FROM rooms
                     WHERE room_id = $1 AND created_at IS NOT NULL AND created_at <> CAST($2 AS BIGINT)",
                    &[room_id.into(), created_at.into()],
                )
                .await?
                .is_some();
            if contradicted {
                return Ok(Creation::Contradiction);
            }
        }
        let rows = participants
            .iter()
            .map(|one| json!([one.platformid, one.nickname]))
            .collect::<Vec<_>>();
        link.execute(
            over_rows!(
                "INSERT INTO members (room_id, platformid, nickname) SELECT $2, value->>0, value->>1 FROM",
                "WHERE true ON CONFLICT DO NOTHING"
            ),
            &[(&json!(rows).to_string()).into(), room_id.into()],
        )
        .await?;
        link.commit().await?;
        Ok(if created {
            Creation::Created
        } else {
            Creation::Completed
        })
    }

    /// Removes a user from a room; true when nobody is left (or the room never was), and then its messages go too.
    /// Repeating the call changes nothing.
    pub async fn leave_room(&self, room_id: &str, platformid: &str, now: i64) -> Result<bool, sqlx::Error> {
        let mut link = self.write().await?;
        // Also takes the row's lock, so that two last participants cannot both believe the other remains.
        let exists = link
            .execute(
                "UPDATE rooms SET owner = CASE WHEN owner = $2 THEN NULL ELSE owner END WHERE room_id = $1 AND gone = 0",
                &[room_id.into(), platformid.into()],
            )
            .await?
            > 0;
        if !exists {
            return Ok(true);
        }
        let sql = "DELETE FROM members WHERE room_id = $1 AND platformid = $2";
        link.execute(sql, &[room_id.into(), platformid.into()]).await?;
        let sql = "SELECT platformid FROM members WHERE room_id = $1 LIMIT 1";
        let deserted = link.first(sql, &[room_id.into()]).await?.is_none();
        if deserted {
            link.execute(
                "UPDATE rooms SET gone = 1, created_at = NULL, owner = NULL, gpt_prompt = NULL, cleared_ts = $2
                 WHERE room_id = $1",
                &[room_id.into(), now.into()],
            )
            .await?;
            link.execute("DELETE FROM messages WHERE room_id = $1", &[room_id.into()])
                .await?;
            link.execute("DELETE FROM events WHERE room_id = $1", &[room_id.into()])
                .await?;
        }
        link.commit().await?;
        Ok(deserted)
    }
}
