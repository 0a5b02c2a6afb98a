//! One way to run SQL on SQLite and on PostgreSQL: the same text with `$1` placeholders, text and integers only.

use futures::TryStreamExt;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Postgres, Row as _, Sqlite, Transaction};

/// A statement, as each database wants it.
#[derive(Clone, Copy)]
pub struct Sql {
    pub sqlite: &'static str,
    pub postgres: &'static str,
}

impl From<&'static str> for Sql {
    /// A statement both databases understand.
    fn from(text: &'static str) -> Self {
        Self {
            sqlite: text,
            postgres: text,
        }
    }
}

/// A statement over rows given as `$1`, a JSON array of arrays: a column `n` of a row is `value->>n`.
macro_rules! over_rows {
    ($before:literal, $after:literal) => {
        $crate::backend::store::db::Sql {
            sqlite: concat!($before, " json_each($1) ", $after),
            postgres: concat!(
                $before,
                " json_array_elements(CAST($1 AS json)) AS item(value) ",
                $after
            ),
        }
    };
}
pub(super) use over_rows;

/// A bound value.
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    Text(&'a str),
    MaybeText(Option<&'a str>),
    Int(i64),
    MaybeInt(Option<i64>),
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Arg<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<Option<&'a str>> for Arg<'a> {
    fn from(value: Option<&'a str>) -> Self {
        Self::MaybeText(value)
    }
}

impl From<i64> for Arg<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<Option<i64>> for Arg<'_> {
    fn from(value: Option<i64>) -> Self {
        Self::MaybeInt(value)
    }
}

/// A result row; columns are read by position.
pub enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

macro_rules! column {
    ($name:ident, $type:ty) => {
        /// Reads one column.
        pub fn $name(&self, index: usize) -> Result<$type, sqlx::Error> {
            match self {
                Self::Sqlite(row) => row.try_get(index),
                Self::Postgres(row) => row.try_get(index),
            }
        }
    };
}

impl Row {
    column!(text, String);
    column!(maybe_text, Option<String>);
    column!(int, i64);
    column!(maybe_int, Option<i64>);
}

/// A connection: plain for reads, within a transaction for writes. A transaction dropped without [`Link::commit`] is undone.
pub enum Link {
    SqliteRead(PoolConnection<Sqlite>),
    SqliteWrite(Transaction<'static, Sqlite>),
    PostgresRead(PoolConnection<Postgres>),
    PostgresWrite(Transaction<'static, Postgres>),
}

fn sqlite_query(sql: Sql, args: &[Arg<'_>]) -> Query<'static, Sqlite, SqliteArguments> {
    args.iter().fold(sqlx::query(sql.sqlite), |query, arg| match *arg {
        Arg::Text(value) => query.bind(value),
        Arg::MaybeText(value) => query.bind(value),
        Arg::Int(value) => query.bind(value),
        Arg::MaybeInt(value) => query.bind(value),
    })
}

fn postgres_query(sql: Sql, args: &[Arg<'_>]) -> Query<'static, Postgres, PgArguments> {
    args.iter().fold(sqlx::query(sql.postgres), |query, arg| match *arg {
        Arg::Text(value) => query.bind(value),
        Arg::MaybeText(value) => query.bind(value),
        Arg::Int(value) => query.bind(value),
        Arg::MaybeInt(value) => query.bind(value),
    })
}

macro_rules! run {
    ($link:expr, $sql:expr, $args:expr, |$query:ident, $on:ident, $wrap:ident| $body:expr) => {{
        let sql: Sql = $sql.into();
        match $link {
            Link::SqliteRead(held) => {
                let ($query, $on, $wrap) = (sqlite_query(sql, $args), &mut **held, Row::Sqlite);
                $body
            }
            Link::SqliteWrite(held) => {
                let ($query, $on, $wrap) = (sqlite_query(sql, $args), &mut **held, Row::Sqlite);
                $body
            }
            Link::PostgresRead(held) => {
                let ($query, $on, $wrap) = (postgres_query(sql, $args), &mut **held, Row::Postgres);
                $body
            }
            Link::PostgresWrite(held) => {
                let ($query, $on, $wrap) = (postgres_query(sql, $args), &mut **held, Row::Postgres);
                $body
            }
        }
    }};
}

impl Link {
    /// Runs a statement; the number of rows it touched.
    pub async fn execute(&mut self, sql: impl Into<Sql>, args: &[Arg<'_>]) -> Result<u64, sqlx::Error> {
        run!(self, sql, args, |query, on, _wrap| Ok(query
            .execute(on)
            .await?
            .rows_affected()))
    }

    /// All rows; the statement bounds their number.
    pub async fn rows(&mut self, sql: impl Into<Sql>, args: &[Arg<'_>]) -> Result<Vec<Row>, sqlx::Error> {
        run!(self, sql, args, |query, on, wrap| Ok(query
            .fetch_all(on)
            .await?
            .into_iter()
            .map(wrap)
            .collect()))
    }

    /// The first row, if any.
    pub async fn first(&mut self, sql: impl Into<Sql>, args: &[Arg<'_>]) -> Result<Option<Row>, sqlx::Error> {
        run!(self, sql, args, |query, on, wrap| Ok(query
            .fetch_optional(on)
            .await?
            .map(wrap)))
    }

    /// Rows one by one until `take` answers false.
    pub async fn rows_while(
        &mut self,
        sql: impl Into<Sql>,
        args: &[Arg<'_>],
        mut take: impl FnMut(&Row) -> Result<bool, sqlx::Error>,
    ) -> Result<(), sqlx::Error> {
        run!(self, sql, args, |query, on, wrap| {
            let mut rows = query.fetch(on);
            while let Some(row) = rows.try_next().await? {
                if !take(&wrap(row))? {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Makes the writes of a transaction permanent.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::SqliteWrite(transaction) => transaction.commit().await,
            Self::PostgresWrite(transaction) => transaction.commit().await,
            Self::SqliteRead(_) | Self::PostgresRead(_) => Ok(()),
        }
    }
}
