//! The provider against the scripted model, over real HTTP.

mod endpoints;
mod faults;
mod replies;

use std::time::Duration;

use super::*;
use crate::gpt::scripted::ScriptedModel;
use crate::upstream::testing::{config, serve};

const KEY: &str = "sk-Test-8c1f";

/// A scripted model and a provider that asks it.
async fn scripted(settings: &[(&'static str, &str)]) -> (ScriptedModel, Provider) {
    let (model, url) = good().await;
    (model, provider(&url, settings))
}

/// A scripted model and its address.
async fn good() -> (ScriptedModel, String) {
    let model = ScriptedModel::new(Duration::ZERO).with_key(KEY);
    let url = format!("{}/v1", serve(model.clone().router()).await);
    (model, url)
}

/// Short timeouts, for endpoints that are silent; all others have theirs, however busy the machine is.
const HASTY: [(&str, &str); 2] = [("GPT_FIRST_TOKEN_TIMEOUT", "500ms"), ("GPT_IDLE_TIMEOUT", "300ms")];

fn provider(urls: &str, settings: &[(&'static str, &str)]) -> Provider {
    let mut pairs = vec![("GPT_BASE_URL", urls), ("GPT_API_KEY", KEY)];
    pairs.retain(|(name, _)| settings.iter().all(|(other, _)| other != name));
    pairs.extend_from_slice(settings);
    Provider::new(&config(&pairs)).unwrap().unwrap()
}

fn prompt(question: &str) -> Prompt {
    let turn = |role, name: Option<&str>, text: &str| Turn {
        role,
        name: name.map(str::to_owned),
        text: text.to_owned(),
    };
    Prompt {
        turns: vec![
            turn(Role::System, None, "Be brief."),
            turn(Role::User, Some("Kim Ö"), question),
        ],
        max_tokens: 100,
    }
}

/// What came of a reply: its text, the other pieces, and the fault if there was one.
#[derive(Debug, Default)]
struct Outcome {
    text: String,
    usage: Option<(u64, u64)>,
    finish: Option<Finish>,
    fault: Option<ProviderError>,
}

async fn ask(provider: &Provider, question: &str) -> Result<Outcome, ProviderError> {
    Ok(drain(provider.stream(&prompt(question)).await?).await)
}

async fn drain(mut reply: ReplyStream) -> Outcome {
    let mut outcome = Outcome::default();
    loop {
        match reply.next().await {
            Ok(Some(Piece::Text(text))) => outcome.text.push_str(&text),
            Ok(Some(Piece::Usage { prompt, completion })) => outcome.usage = Some((prompt, completion)),
            Ok(Some(Piece::End(finish))) => outcome.finish = Some(finish),
            Ok(None) => return outcome,
            Err(error) => {
                assert_eq!(reply.next().await, Err(error.clone()));
                outcome.fault = Some(error);
                return outcome;
            }
        }
    }
}

/// An endpoint that gives one body to whatever it is asked.
async fn fixed(body: &'static str) -> Provider {
    let answer = move || async move { ([("content-type", "text/event-stream")], body) };
    let router = axum::Router::new().route("/chat/completions", axum::routing::post(answer));
    provider(&serve(router).await, &[])
}
