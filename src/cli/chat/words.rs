//! Refusals in plain words.

use std::time::Duration;

use roomcast_load::client::ConnectError;
use serde_json::Value;

/// Why there is no connection, and what follows from that.
pub struct NoConnection {
    /// For the person.
    pub reason: String,
    /// When to try again; `None`: in vain.
    pub retry: Option<Duration>,
}

/// When to try again where the server does not say.
const RETRY: Duration = Duration::from_secs(1);

/// Explains why a connection was not made.
pub fn no_connection(error: &ConnectError) -> NoConnection {
    let (status, text) = match error {
        ConnectError::Http { status, body, .. } => (*status, body),
        ConnectError::Refused { message } => (0, message),
        ConnectError::Timeout => return passing("the node does not answer".to_owned()),
        ConnectError::Transport(_) => return passing("the node cannot be reached".to_owned()),
    };
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    let message = answer["message"].as_str().unwrap_or(text);
    let wait = answer["retryAfterMs"].as_u64().map(Duration::from_millis);
    match (answer["code"].as_str(), status) {
        (Some("blocked"), _) => NoConnection {
            reason: format!("you are blocked{} ({message})", until(wait)),
            retry: None,
        },
        (Some("auth_unavailable"), _) | (_, 429 | 500..) => NoConnection {
            reason: match answer["code"].as_str() {
                Some("auth_unavailable") => "logins cannot be checked right now".to_owned(),
                _ => format!("the node is not ready ({})", clean(message)),
            },
            retry: Some(wait.unwrap_or(RETRY)),
        },
        (_, 0) => NoConnection {
            reason: format!("the node refused you: {}", clean(message)),
            retry: None,
        },
        (_, status) => NoConnection {
            reason: format!("this is no chat node: it answered {status}"),
            retry: None,
        },
    }
}

fn passing(reason: String) -> NoConnection {
    NoConnection {
        reason,
        retry: Some(RETRY),
    }
}

fn until(wait: Option<Duration>) -> String {
    wait.map_or_else(String::new, |wait| {
        format!(" for {} s", wait.as_millis().div_ceil(1000))
    })
}

/// Explains a `security:notice`.
pub fn notice(notice: &Value) -> String {
    let wait = notice["blockedForMs"].as_u64().map(Duration::from_millis);
    let message = notice["message"].as_str().unwrap_or("no reason given");
    format!("the node cuts you off{}: {}", until(wait), clean(message))
}

/// Explains a failed event by its code; the server's own words where they say more.
pub fn failure(answer: &Value, room: &str) -> String {
    match answer["code"].as_str() {
        Some("not_member") => format!("you do not belong to {}", clean(room)),
        Some("not_author") => "only who wrote a message may change it".to_owned(),
        Some("not_found") => "there is no such message any more".to_owned(),
        Some("room_gone") => format!("{} was deleted", clean(room)),
        Some("too_large") => "the text is too long".to_owned(),
        Some("rate_limited") => "too much at once".to_owned(),
        _ => clean(answer["message"].as_str().unwrap_or("no reason given")),
    }
}

/// Text of others, on one line and unable to command the terminal.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => '⏎',
            c if c.is_control() => ' ',
            // These turn the direction of what follows on the line.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => ' ',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(message: &str) -> NoConnection {
        no_connection(&ConnectError::Refused {
            message: message.to_owned(),
        })
    }

    #[test]
    fn refusals_say_whether_trying_again_helps() {
        let blocked = refused(r#"{"code":"blocked","message":"you're banned","retryAfterMs":59001}"#);
        assert_eq!(blocked.reason, "you are blocked for 60 s (you're banned)");
        assert!(blocked.retry.is_none());
        let outage = refused(r#"{"code":"auth_unavailable","message":"auth_unavailable","retryAfterMs":2000}"#);
        assert_eq!(outage.retry, Some(Duration::from_secs(2)));
        let http = |status, body: &str| {
            no_connection(&ConnectError::Http {
                status,
                body: body.to_owned(),
                headers: Vec::new(),
            })
        };
        assert!(http(503, "").retry.is_some());
        assert!(http(404, "<html>").retry.is_none());
        assert!(
            http(403, r#"{"code":"blocked","message":"x"}"#)
                .reason
                .contains("blocked")
        );
    }

    #[test]
    fn texts_cannot_command_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\nc\u{202e}d"), "a [2Jb⏎c d");
    }
}
