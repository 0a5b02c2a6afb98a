//! The database behind the services: where it is, how it is opened, and how to get a connection.

mod accounts;
mod db;
mod messages;
mod rooms;
mod seed;

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, PgPool, SqlitePool};

use super::error::BackendError;
use db::Link;

pub use accounts::{Account, Refusal, Rotation, Session};
pub use messages::{Event, Kind, Order, Page, Position};
pub use rooms::{Creation, Participant, Room};

/// A request that cannot get a connection within this time is answered "unavailable"; half of what callers usually wait.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Readers beside the one writer: page reads are short, more would only fight for two cores.
const SQLITE_READERS: u32 = 4;
/// A small share of the 100 connections PostgreSQL allows by default.
const POSTGRES_CONNECTIONS: u32 = 16;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("src/backend/migrations");

/// The pools of one database.
pub enum Store {
    /// SQLite has one writer at a time: a pool of one makes writers queue fairly instead of meeting `SQLITE_BUSY`.
    Sqlite {
        read: SqlitePool,
        write: SqlitePool,
    },
    Postgres(PgPool),
}

impl Store {
    /// Opens the database, creating an SQLite file where there is none, and brings the schema up to date.
    pub async fn open(url: &str) -> Result<Self, BackendError> {
        let store = if url.starts_with("sqlite:") {
            Self::open_sqlite(url).await?
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let options = PgConnectOptions::from_str(url)
                .map_err(|error| bad_url(&error))?
                .disable_statement_logging();
            Self::Postgres(
                PgPoolOptions::new()
                    .max_connections(POSTGRES_CONNECTIONS)
                    .acquire_timeout(ACQUIRE_TIMEOUT)
                    .connect_with(options)
                    .await?,
            )
        } else {
            return Err(BackendError::Config {
                setting: "database",
                reason: "expected a URL that starts with sqlite: or postgres:".to_owned(),
            });
        };
        match &store {
            Self::Sqlite { write, .. } => MIGRATIONS.run(write).await?,
            Self::Postgres(pool) => MIGRATIONS.run(pool).await?,
        }
        Ok(store)
    }

    async fn open_sqlite(url: &str) -> Result<Self, BackendError> {
        // FULL: an event acknowledged to the archiver is trimmed from the room's log, so it must survive a power cut.
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|error| bad_url(&error))?
            .create_if_missing(true)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(ACQUIRE_TIMEOUT)
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT);
        if url.contains(":memory:") || url.contains("mode=memory") {
            // Such a database lives as long as its connection, and only there.
            let write = pool
                .max_connections(1)
                .idle_timeout(None)
                .max_lifetime(None)
                .connect_with(options)
                .await?;
            return Ok(Self::Sqlite {
                read: write.clone(),
                write,
            });
        }
        let write = pool
            .clone()
            .max_connections(1)
            .connect_with(options.clone().journal_mode(SqliteJournalMode::Wal))
            .await?;
        let read = pool
            .max_connections(SQLITE_READERS)
            .connect_lazy_with(options.pragma("query_only", "ON"));
        Ok(Self::Sqlite { read, write })
    }

    /// A connection for reads.
    async fn read(&self) -> Result<Link, sqlx::Error> {
        match self {
            Self::Sqlite { read, .. } => Ok(Link::SqliteRead(read.acquire().await?)),
            Self::Postgres(pool) => Ok(Link::PostgresRead(pool.acquire().await?)),
        }
    }

    /// A transaction for writes.
    async fn write(&self) -> Result<Link, sqlx::Error> {
        match self {
            Self::Sqlite { write, .. } => Ok(Link::SqliteWrite(write.begin_with("BEGIN IMMEDIATE").await?)),
            Self::Postgres(pool) => Ok(Link::PostgresWrite(pool.begin().await?)),
        }
    }

    /// Proves that the database answers.
    pub async fn ping(&self) -> Result<(), sqlx::Error> {
        self.read()
            .await?
            .first("SELECT CAST(1 AS BIGINT)", &[])
            .await
            .map(drop)
    }

    /// Closes all connections; SQLite folds its write-ahead log into the file.
    pub async fn close(&self) {
        match self {
            Self::Sqlite { read, write } => {
                read.close().await;
                write.close().await;
            }
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

fn bad_url(_: &sqlx::Error) -> BackendError {
    // The parser's message may quote the URL, which can hold a password.
    BackendError::Config {
        setting: "database",
        reason: "the URL cannot be parsed".to_owned(),
    }
}
