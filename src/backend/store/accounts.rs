//! Users, sessions and refresh tokens.

use super::Store;
use super::db::{Link, Row};

/// A user.
#[derive(Debug, Clone)]
pub struct Account {
    pub platformid: String,
    pub username: String,
    pub password_hash: Option<String>,
}

/// What a new session starts with. Times are Unix milliseconds.
pub struct Session<'a> {
    pub sid: &'a str,
    pub platformid: &'a str,
    pub token_hash: &'a str,
    pub expires_at: i64,
    /// Sessions that expired before this are forgotten: long enough ago that none of their access tokens is alive.
    pub forget_before: i64,
}

/// A wish to replace a refresh token.
pub struct Rotation<'a> {
    pub next_hash: &'a str,
    pub next_expires_at: i64,
}

/// Why a refresh token does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Unknown,
    Expired,
    Revoked,
    /// It was replaced and came back: the whole family is revoked.
    Reused,
}

/// A refresh token as stored, with its session and user.
struct Presented {
    sid: String,
    account: Account,
    expires_at: i64,
    rotated_at: Option<i64>,
    revoked: bool,
    /// One of its successors was itself replaced, so the client surely received that successor.
    superseded: bool,
}

const PRESENTED: &str = "SELECT t.sid, u.platformid, u.username, t.expires_at, t.rotated_at, s.revoked_at,
       (SELECT COUNT(*) FROM refresh_tokens c WHERE c.parent = t.hash AND c.rotated_at IS NOT NULL)
  FROM refresh_tokens t
  JOIN sessions s ON s.sid = t.sid
  JOIN users u ON u.platformid = s.platformid
 WHERE t.hash = $1";

impl Presented {
    async fn find(link: &mut Link, hash: &str) -> Result<Option<Self>, sqlx::Error> {
        let Some(row) = link.first(PRESENTED, &[hash.into()]).await? else {
            return Ok(None);
        };
        Ok(Some(Self {
            sid: row.text(0)?,
            account: Account {
                platformid: row.text(1)?,
                username: row.text(2)?,
                password_hash: None,
            },
            expires_at: row.int(3)?,
            rotated_at: row.maybe_int(4)?,
            revoked: row.maybe_int(5)?.is_some(),
            superseded: row.int(6)? > 0,
        }))
    }

    fn judge(&self, now: i64, grace_ms: i64) -> Result<(), Refusal> {
        if self.revoked {
            return Err(Refusal::Revoked);
        }
        if self.expires_at <= now {
            return Err(Refusal::Expired);
        }
        match self.rotated_at {
            Some(at) if self.superseded || now.saturating_sub(at) >= grace_ms => Err(Refusal::Reused),
            _ => Ok(()),
        }
    }
}

fn account(row: &Row) -> Result<Account, sqlx::Error> {
    Ok(Account {
        platformid: row.text(0)?,
        username: row.text(1)?,
        password_hash: row.maybe_text(2)?,
    })
}

impl Store {
    /// The user of that name, upper and lower case being the same.
    pub async fn account_by_name(&self, username: &str) -> Result<Option<Account>, sqlx::Error> {
        let sql = "SELECT platformid, username, password_hash FROM users WHERE username_key = $1";
        let row = self
            .read()
            .await?
            .first(sql, &[(&username.to_lowercase()).into()])
            .await?;
        row.as_ref().map(account).transpose()
    }

    /// The user of that id.
    pub async fn account_by_id(&self, platformid: &str) -> Result<Option<Account>, sqlx::Error> {
        let sql = "SELECT platformid, username, password_hash FROM users WHERE platformid = $1";
        let row = self.read().await?.first(sql, &[platformid.into()]).await?;
        row.as_ref().map(account).transpose()
    }

    /// Adds a user, or leaves the one who has that name or id as is; the user of that name afterwards.
    pub async fn add_account(&self, platformid: &str, username: &str) -> Result<Option<Account>, sqlx::Error> {
        let mut link = self.write().await?;
        link.execute(
            "INSERT INTO users (platformid, username, username_key) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            &[platformid.into(), username.into(), (&username.to_lowercase()).into()],
        )
        .await?;
        link.commit().await?;
        self.account_by_name(username).await
    }

    /// Stores the hash of a user's password.
    pub async fn set_password_hash(&self, platformid: &str, hash: &str) -> Result<(), sqlx::Error> {
        let mut link = self.write().await?;
        let sql = "UPDATE users SET password_hash = $2 WHERE platformid = $1";
        link.execute(sql, &[platformid.into(), hash.into()]).await?;
        link.commit().await
    }

    /// Begins a session with its first refresh token, and forgets what expired.
    pub async fn begin_session(&self, session: Session<'_>) -> Result<(), sqlx::Error> {
        let mut link = self.write().await?;
        link.execute(
            "DELETE FROM refresh_tokens WHERE expires_at < $1",
            &[session.forget_before.into()],
        )
        .await?;
        link.execute(
            "DELETE FROM sessions WHERE expires_at < $1",
            &[session.forget_before.into()],
        )
        .await?;
        link.execute(
            "INSERT INTO sessions (sid, platformid, expires_at) VALUES ($1, $2, $3)",
            &[session.sid.into(), session.platformid.into(), session.expires_at.into()],
        )
        .await?;
        link.execute(
            "INSERT INTO refresh_tokens (hash, sid, expires_at) VALUES ($1, $2, $3)",
            &[session.token_hash.into(), session.sid.into(), session.expires_at.into()],
        )
        .await?;
        link.commit().await
    }

    /// Whether the session was revoked; a session nobody knows (an issuer of its own) is not.
    pub async fn is_revoked(&self, sid: &str) -> Result<bool, sqlx::Error> {
        let sql = "SELECT revoked_at FROM sessions WHERE sid = $1";
        let row = self.read().await?.first(sql, &[sid.into()]).await?;
        Ok(row.map(|row| row.maybe_int(0)).transpose()?.flatten().is_some())
    }

    /// Judges a refresh token and, if wished, replaces it. Reuse of a replaced token revokes the family.
    pub async fn refresh(
        &self,
        hash: &str,
        rotation: Option<Rotation<'_>>,
        now: i64,
        grace_ms: i64,
    ) -> Result<Result<(String, Account), Refusal>, sqlx::Error> {
        // Legacy clients never rotate: they are served by the readers, no writer is held up.
        let Some(seen) = Presented::find(&mut self.read().await?, hash).await? else {
            return Ok(Err(Refusal::Unknown));
        };
        let verdict = seen.judge(now, grace_ms);
        if (rotation.is_none() || verdict.is_err()) && verdict != Err(Refusal::Reused) {
            return Ok(verdict.map(|()| (seen.sid, seen.account)));
        }
        let mut link = self.write().await?;
        let Some(seen) = Presented::find(&mut link, hash).await? else {
            return Ok(Err(Refusal::Unknown));
        };
        let verdict = seen.judge(now, grace_ms);
        match (verdict, rotation) {
            (Err(Refusal::Reused), _) => {
                revoke(&mut link, &seen.sid, now).await?;
            }
            (Ok(()), Some(rotation)) => {
                link.execute(
                    "UPDATE refresh_tokens SET rotated_at = $2 WHERE hash = $1 AND rotated_at IS NULL",
                    &[hash.into(), now.into()],
                )
                .await?;
                link.execute(
                    "INSERT INTO refresh_tokens (hash, sid, parent, expires_at) VALUES ($1, $2, $3, $4)",
                    &[
                        rotation.next_hash.into(),
                        (&seen.sid).into(),
                        hash.into(),
                        rotation.next_expires_at.into(),
                    ],
                )
                .await?;
                link.execute(
                    "UPDATE sessions SET expires_at = $2 WHERE sid = $1 AND expires_at < $2",
                    &[(&seen.sid).into(), rotation.next_expires_at.into()],
                )
                .await?;
            }
            _ => {}
        }
        link.commit().await?;
        Ok(verdict.map(|()| (seen.sid, seen.account)))
    }

    /// The session a refresh token belongs to.
    pub async fn sid_of_token(&self, hash: &str) -> Result<Option<String>, sqlx::Error> {
        let sql = "SELECT sid FROM refresh_tokens WHERE hash = $1";
        self.read()
            .await?
            .first(sql, &[hash.into()])
            .await?
            .map(|row| row.text(0))
            .transpose()
    }

    /// Ends a session: none of its tokens counts any more. False when there is none or it had ended.
    pub async fn end_session(&self, sid: &str, now: i64) -> Result<bool, sqlx::Error> {
        let mut link = self.write().await?;
        let ended = revoke(&mut link, sid, now).await?;
        link.commit().await?;
        Ok(ended > 0)
    }
}

async fn revoke(link: &mut Link, sid: &str, now: i64) -> Result<u64, sqlx::Error> {
    let sql = "UPDATE sessions SET revoked_at = $2 WHERE sid = $1 AND revoked_at IS NULL";
    link.execute(sql, &[sid.into(), now.into()]).await
}
