//! What the commands for operators share: the way to Redis, tables, and times that people read.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use ipnet::IpNet;
use serde::Serialize;
use time::OffsetDateTime;

use super::{CliError, settings};
use crate::config::{List, RedisConfig, Source, declared};
use crate::guard::operate::{Operate, read_actor};
use crate::model::UnixMs;
use crate::redis::Redis;

/// Who acts, for the audit stream.
#[derive(Args)]
pub struct By {
    /// Who does this, for the audit stream; if absent, the user of this shell
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

impl By {
    /// The name given, else that of the shell's user, also behind sudo.
    pub fn name(&self, source: &Source) -> Result<String, CliError> {
        let shell = source.text("SUDO_USER").or_else(|| source.text("USER"));
        let name = self.by.as_deref().or(shell.filter(|name| !name.is_empty()));
        Ok(read_actor(name.unwrap_or("cli"))?)
    }
}

/// Connects with the settings of Redis alone.
pub async fn operate(source: &Source) -> Result<Operate, CliError> {
    let config = RedisConfig::read(source)?;
    let allow: List<IpNet> = declared(source, "GUARD_ALLOW")?;
    let redis = Redis::start(config)?;
    settings::connect(&redis).await?;
    Ok(Operate::new(redis, allow.to_vec()))
}

/// A table without lines, which other programs can cut into columns too.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

/// A table as text, without the blanks at the ends of its lines.
pub fn lines(table: &Table) -> String {
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Prints lines; a reader that has seen enough is no error.
pub fn print(text: &str) {
    let _broken_pipe = writeln!(std::io::stdout(), "{}", text.trim_end());
}

/// Prints a value as JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string_pretty(value).map_err(|error| CliError::Internal(error.to_string()))?;
    print(&json);
    Ok(())
}

/// Tells what the operator may not have meant, apart from the answer.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("roomcast: warning: {warning}");
    }
}

/// `4 min ago`.
pub fn ago(at: UnixMs, now: UnixMs) -> String {
    format!("{} ago", span(Duration::from_millis(now.saturating_sub(at))))
}

/// `in 4 min`.
pub fn until(at: UnixMs, now: UnixMs) -> String {
    format!("in {}", span(Duration::from_millis(at.saturating_sub(now))))
}

/// `2026-11-25 15:34 UTC`.
pub fn date(at: UnixMs) -> String {
    let seconds = i64::try_from(at / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_or_else(
        |_| "after all time".to_owned(),
        |at| {
            let (year, month, day, hour, minute) = (at.year(), u8::from(at.month()), at.day(), at.hour(), at.minute());
            format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
        },
    )
}

/// A length in its largest unit that says enough; rounded, so that a ban just set for 24 h has 24 h left.
pub fn span(length: Duration) -> String {
    let seconds = length.as_secs_f64().round() as u64;
    let in_units = |unit: u64| (seconds + unit / 2) / unit;
    if seconds < 120 {
        format!("{seconds} s")
    } else if in_units(60) < 120 {
        format!("{} min", in_units(60))
    } else if in_units(3600) < 72 {
        format!("{} h", in_units(3600))
    } else {
        format!("{} days", in_units(24 * 3600))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_tell_them() {
        const MINUTE: u64 = 60_000;
        let now = 1_795_620_840_000;
        for (ms, text) in [
            (0, "in 0 s"),
            (59_600, "in 60 s"),
            (4 * MINUTE, "in 4 min"),
            (60 * MINUTE - 20, "in 60 min"),
            (24 * 60 * MINUTE - 20, "in 24 h"),
            (7 * 24 * 60 * MINUTE - 20, "in 7 days"),
        ] {
            assert_eq!(until(now + ms, now), text);
        }
        assert_eq!(ago(now - 3 * 60 * MINUTE, now), "3 h ago");
        assert_eq!(ago(now + 5, now), "0 s ago", "another clock");
        assert_eq!(date(now), "2026-11-25 15:34 UTC");
        assert_eq!(date(UnixMs::MAX), "after all time");
    }
}
