//! `roomcast config` and `roomcast check-config`.

use std::time::Duration;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};

use super::CliError;
use crate::config::{Config, Source};
use crate::redis::Redis;

/// How long Redis may take to answer a check.
const REDIS_WAIT: Duration = Duration::from_secs(4);

/// Arguments of `roomcast config`.
#[derive(Args)]
pub struct ConfigArgs {
    /// As JSON, for scripts
    #[arg(long)]
    json: bool,
}

/// Prints every setting with its default.
pub fn print(args: &ConfigArgs) -> Result<(), CliError> {
    if args.json {
        let json =
            serde_json::to_string_pretty(Config::SETTINGS).map_err(|error| CliError::Internal(error.to_string()))?;
        println!("{json}");
        return Ok(());
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["SETTING", "DEFAULT", "WHAT IT DOES"]);
    for setting in Config::SETTINGS {
        let default = match setting.default {
            Some("") => "(empty)",
            Some(default) => default,
            None if setting.optional => "(unset)",
            None => "(required)",
        };
        table.add_row([setting.name, default, setting.doc.trim()]);
    }
    println!("{table}");
    println!("\nSecret settings may also name a file: <SETTING>_FILE.");
    Ok(())
}

/// Checks the settings and that Redis can be used.
pub async fn check(source: &Source) -> Result<(), CliError> {
    let config = Config::read(source)?;
    config.validate()?;
    let redis = Redis::start(&config)?;
    let checked = async {
        redis.wait_connected().await;
        redis.wait_checked().await
    };
    answered(checked).await??;
    println!("The settings are complete and Redis can be used.");
    Ok(())
}

/// Waits until Redis can be used, but not for ever.
pub async fn connect(redis: &Redis) -> Result<(), CliError> {
    answered(redis.wait_connected()).await
}

async fn answered<T>(answer: impl Future<Output = T>) -> Result<T, CliError> {
    tokio::time::timeout(REDIS_WAIT, answer).await.map_err(|_| {
        CliError::Unavailable(
            "REDIS_URL: no answer within 4 s; is Redis running there, and are user and password right?".into(),
        )
    })
}
