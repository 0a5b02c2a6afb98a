//! Fills the database with users and rooms to try things with.

use super::Store;

/// The numbers 0 … $1-1.
macro_rules! numbers {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " WITH RECURSIVE number(i) AS (
                  SELECT CAST(0 AS BIGINT) WHERE CAST($1 AS BIGINT) > 0
                  UNION ALL SELECT i + 1 FROM number WHERE i + 1 < CAST($1 AS BIGINT)
              ) ",
            $after
        )
    };
}

impl Store {
    /// Makes sure that users `user0`… and rooms `room-0`… exist and that user *i* is in `room-(i mod rooms)`.
    pub async fn seed(&self, users: u32, rooms: u32) -> Result<(), sqlx::Error> {
        let (users, rooms) = (i64::from(users), i64::from(rooms));
        let mut link = self.write().await?;
        link.execute(
            numbers!(
                "INSERT INTO users (platformid, username, username_key)",
                "SELECT 'p' || CAST(i AS TEXT), 'user' || CAST(i AS TEXT), 'user' || CAST(i AS TEXT)
                   FROM number WHERE true ON CONFLICT DO NOTHING"
            ),
            &[users.into()],
        )
        .await?;
        link.execute(
            numbers!(
                "INSERT INTO rooms (room_id)",
                "SELECT 'room-' || CAST(i AS TEXT) FROM number WHERE true
                     ON CONFLICT (room_id) DO UPDATE SET gone = 0 WHERE rooms.gone = 1"
            ),
            &[rooms.into()],
        )
        .await?;
        if rooms > 0 {
            link.execute(
                numbers!(
                    "INSERT INTO members (room_id, platformid, nickname)",
                    "SELECT 'room-' || CAST(i % CAST($2 AS BIGINT) AS TEXT), 'p' || CAST(i AS TEXT), 'user' || CAST(i AS TEXT)
                       FROM number WHERE true ON CONFLICT DO NOTHING"
                ),
                &[users.into(), rooms.into()],
            )
            .await?;
        }
        link.commit().await
    }
}
