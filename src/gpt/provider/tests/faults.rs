//! Every way in which a reply can fail, its code, and what is not said about it.

use std::io::Write;
use std::sync::Mutex;

use super::*;

#[tokio::test]
async fn each_fault_before_the_first_token_has_its_code() {
    for (question, code, retryable) in [
        ("cut", "bad_stream", true),
        ("malformed", "bad_stream", true),
        ("end after 0", "bad_stream", true),
        ("page", "bad_stream", true),
        ("stall", "timeout", true),
        ("slow 5000 ms, hi", "timeout", true),
        ("429", "rate_limited", true),
        ("503", "rate_limited", true),
        ("500", "provider_unavailable", true),
        ("error after 0", "provider_unavailable", true),
        ("context too long", "context_too_long", false),
        ("wrong key", "unauthorized", false),
        ("refused", "refused", false),
    ] {
        // Its own provider each: a breaker remembers.
        let settings: &[_] = if code == "timeout" { &HASTY } else { &[] };
        let (_, provider) = scripted(settings).await;
        let error = ask(&provider, question).await.unwrap_err();
        assert_eq!(
            (error.code(), error.retryable()),
            (code, retryable),
            "{question}: {error}"
        );
        let pause = (code == "rate_limited").then(|| Duration::from_secs(1));
        assert_eq!(error.retry_after(), pause, "{question}");
    }
}

#[tokio::test]
async fn a_reply_that_breaks_keeps_what_was_said_and_has_a_code() {
    let (model, provider) = scripted(&[]).await;
    for (question, code) in [
        ("cut after 3, a b c", "bad_stream"),
        ("error after 3, a b c", "provider_unavailable"),
    ] {
        let outcome = ask(&provider, question).await.unwrap();
        assert_eq!(outcome.text, "You asked: a ", "{question}");
        assert_eq!(outcome.fault.unwrap().code(), code, "{question}");
        // Once a word is out, nothing is tried again behind the caller's back.
        assert_eq!(model.calls(question), 1);
    }
    let (_, provider) = scripted(&[]).await;
    for (question, code) in [
        ("malformed after 3, a b c", "bad_stream"),
        ("end after 3, a b c", "bad_stream"),
    ] {
        let outcome = ask(&provider, question).await.unwrap();
        assert_eq!(
            (outcome.text.as_str(), outcome.fault.unwrap().code()),
            ("You asked: a ", code)
        );
    }
}

#[tokio::test]
async fn a_reply_that_pauses_too_long_times_out_however_often_the_caller_looks() {
    let (_, provider) = scripted(&HASTY).await;
    let mut reply = provider.stream(&prompt("stall after 2, a b c")).await.unwrap();
    let mut words = 0;
    let error = loop {
        match tokio::time::timeout(Duration::from_millis(20), reply.next()).await {
            Err(_) => {}
            Ok(Ok(piece)) => words += u32::from(matches!(piece, Some(Piece::Text(_)))),
            Ok(Err(error)) => break error,
        }
    };
    assert_eq!((words, error.code()), (2, "timeout"));
}

#[tokio::test]
async fn comments_are_no_tokens() {
    let answer = || async {
        let comments = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok::<_, std::io::Error>(": processing\n\n"), ()))
        });
        let body = axum::body::Body::from_stream(comments);
        ([("content-type", "text/event-stream")], body)
    };
    let router = axum::Router::new().route("/chat/completions", axum::routing::post(answer));
    let provider = provider(&serve(router).await, &HASTY);
    assert_eq!(ask(&provider, "x").await.unwrap_err().code(), "timeout");
}

#[tokio::test]
async fn a_reply_of_five_megabytes_is_cut_at_the_limit() {
    let (_, provider) = scripted(&[]).await;
    let outcome = ask(&provider, "huge").await.unwrap();
    assert_eq!(outcome.fault, Some(ProviderError::TooLarge));
    assert!(!outcome.fault.unwrap().retryable());
    assert!(
        (32 * 1024..=64 * 1024).contains(&outcome.text.len()),
        "{}",
        outcome.text.len()
    );
}

#[tokio::test]
async fn an_event_without_an_end_is_too_large() {
    let answer = || async {
        (
            [("content-type", "text/event-stream")],
            "data: ".to_owned() + &"x".repeat(5 << 20),
        )
    };
    let router = axum::Router::new().route("/chat/completions", axum::routing::post(answer));
    let provider = provider(&serve(router).await, &[]);
    assert_eq!(ask(&provider, "x").await.unwrap_err().code(), "too_large");
}

/// Everything that is logged while it lives.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_wrong_key_is_told_without_the_key_and_without_the_prompt() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // For this thread, on which the test's runtime runs.
    let _logging = tracing::subscriber::set_default(subscriber);
    let model = ScriptedModel::new(Duration::ZERO).with_key("another");
    let url = format!("{}/v1", serve(model.clone().router()).await);
    let settings = config(&[("GPT_BASE_URL", url.as_str()), ("GPT_API_KEY", KEY)]);
    let provider = Provider::new(&settings).unwrap().unwrap();
    let error = ask(&provider, "what is the secret plan?").await.unwrap_err();
    assert_eq!(error.code(), "unauthorized");
    let (_, good) = scripted(&[]).await;
    ask(&good, "cut after 2, what is the secret plan?").await.unwrap();

    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(
        logged.contains("left alone") && logged.contains("unauthorized"),
        "{logged}"
    );
    let said = format!("{logged}{error}{error:?}{settings:?}");
    for secret in [KEY, "secret plan", "Be brief"] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}
