//! `roomcast token`: access tokens for load tests.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::CliError;
use crate::auth::issue_token;
use crate::config::{ConfigError, Millis, Secret, Source};
use crate::model::{Identity, UserId};

/// Arguments of `roomcast token`.
#[derive(Args)]
pub struct TokenArgs {
    /// How many
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Beginning of the user names; user0 has platformid p0
    #[arg(long, default_value = "user")]
    prefix: String,
    /// How long they hold, such as 24h
    #[arg(long, default_value = "24h")]
    ttl: String,
}

/// Prints the tokens, one a line.
pub fn run(args: &TokenArgs, source: &Source) -> Result<(), CliError> {
    let secret: Secret = source.setting("JWT_SECRET", None)?;
    let ttl: Duration = *Source::from_pairs([("--ttl", args.ttl.as_str())]).setting::<Millis>("--ttl", None)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for number in 0..args.count {
        let user = UserId::new(&format!("p{number}")).map_err(|error| CliError::Internal(error.to_string()))?;
        let identity = Identity {
            user,
            username: format!("{}{number}", args.prefix),
            session: None,
            issued_at: None,
            expires_at: None,
        };
        let token = issue_token(secret.expose(), &identity, ttl)
            .map_err(|error| ConfigError::new("JWT_SECRET", error.to_string(), "use a secret of at least 32 bytes"))?;
        if writeln!(out, "{token}").is_err() {
            // The reader has seen enough.
            return Ok(());
        }
    }
    let _closed = out.flush();
    Ok(())
}
