//! Several endpoints, breakers, and settings.

use axum::routing::post;
use serde_json::Value;

use super::*;
use crate::upstream::testing::{NOWHERE, Scripted};

#[tokio::test]
async fn the_next_endpoint_answers_where_one_fails() {
    let (model, url) = good().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    for (number, bad) in [NOWHERE, silent.as_str(), &Scripted::start(500, "").await.url]
        .into_iter()
        .enumerate()
    {
        let question = format!("question {number}");
        let outcome = ask(&provider(&format!("{bad},{url}"), &HASTY), &question)
            .await
            .unwrap();
        assert_eq!(outcome.text, format!("You asked: {question}"));
        assert_eq!(model.calls(&question), 1);
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_is_left_alone_and_comes_back() {
    let broken = Scripted::start(500, "").await;
    let (_, url) = good().await;
    let provider = provider(&format!("{},{url}", broken.url), &[]);
    for _ in 0..5 {
        ask(&provider, "hi").await.unwrap();
    }
    assert_eq!(broken.asked().len(), 3);
    broken.answer(400, r#"{"error":{"code":"context_length_exceeded"}}"#);
    // The first pause is two seconds; then the preferred endpoint is asked again, and its word counts.
    let until = Instant::now() + Duration::from_secs(10);
    while ask(&provider, "hi").await.is_ok() {
        assert!(Instant::now() < until, "the endpoint is not asked again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(broken.asked().len(), 4);
    assert_eq!(ask(&provider, "hi").await.unwrap_err().code(), "context_too_long");
}

#[tokio::test]
async fn a_pause_that_an_endpoint_asks_for_holds_for_every_prompt() {
    let (model, url) = good().await;
    let provider = provider(&url, &[]);
    let asked = Instant::now();
    let error = ask(&provider, "429, wait 1200 ms").await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_millis(1200)));
    let error = ask(&provider, "hi").await.unwrap_err();
    assert_eq!(error.code(), "rate_limited");
    assert!(error.retry_after().unwrap() <= Duration::from_millis(1200));
    assert_eq!(model.calls("hi"), 0);
    while let Err(error) = ask(&provider, "hi").await {
        tokio::time::sleep(error.retry_after().unwrap()).await;
    }
    assert!(asked.elapsed() >= Duration::from_millis(1200));
    assert_eq!(model.calls("hi"), 1);
}

#[tokio::test]
async fn a_fault_of_the_prompt_is_not_tried_elsewhere() {
    let (model, url) = good().await;
    let (other, other_url) = good().await;
    let provider = provider(&format!("{url},{other_url}"), &[]);
    for question in ["context too long", "refused"] {
        ask(&provider, question).await.unwrap_err();
        assert_eq!((model.calls(question), other.calls(question)), (1, 0));
    }
}

#[tokio::test]
async fn of_several_failures_the_one_to_wait_for_is_told() {
    let unauthorized = Scripted::start(401, "").await.url;
    let (_, url) = good().await;
    for urls in [format!("{unauthorized},{url}"), format!("{url},{unauthorized}")] {
        let error = ask(&provider(&urls, &[]), "429").await.unwrap_err();
        assert_eq!((error.code(), error.retryable()), ("rate_limited", true), "{urls}");
    }
}

#[tokio::test]
async fn once_a_fault_goes_away_the_same_prompt_succeeds() {
    let (model, url) = good().await;
    let provider = provider(&url, &[]);
    assert_eq!(
        ask(&provider, "id q1, once, cut, hi").await.unwrap_err().code(),
        "bad_stream"
    );
    assert_eq!(
        ask(&provider, "id q1, once, cut, hi").await.unwrap().text,
        "You asked: hi"
    );
    assert_eq!(model.calls("q1"), 2);
    let counted = reqwest::get(url.replace("/v1", "/calls/q1")).await.unwrap();
    assert_eq!(counted.text().await.unwrap(), "2");
}

#[tokio::test]
async fn keys_and_models_may_differ_by_endpoint() {
    let failing = Scripted::start(500, "").await;
    let last = Scripted::start(500, "").await;
    let urls = format!("{}/a/?v=1,{}", failing.url, last.url);
    let provider = provider(
        &urls,
        &[
            ("GPT_API_KEY", "first,"),
            ("GPT_MODEL", "big, small"),
            ("GPT_TEMPERATURE", "0.5"),
        ],
    );
    ask(&provider, "hi").await.unwrap_err();
    let (one, two) = (failing.last(), last.last());
    assert_eq!(one.line, "POST /a/chat/completions?v=1");
    assert_eq!(
        (one.bearer.as_deref(), two.bearer.as_deref()),
        (Some("Bearer first"), None)
    );
    let bodies = [one, two].map(|asked| serde_json::from_str::<Value>(&asked.body).unwrap());
    assert_eq!(
        (&bodies[0]["model"], &bodies[1]["model"]),
        (&"big".into(), &"small".into())
    );
    assert_eq!(bodies[0]["messages"][1]["name"], "Kim__");
    assert_eq!(
        (&bodies[0]["stream"], &bodies[0]["temperature"]),
        (&true.into(), &0.5.into())
    );
}

#[tokio::test]
async fn a_model_that_knows_only_the_newer_name_of_the_limit_is_asked_with_it() {
    let bodies: Arc<std::sync::Mutex<Vec<Value>>> = Arc::default();
    let seen = bodies.clone();
    let answer = move |axum::Json(body): axum::Json<Value>| async move {
        let newer = body.get("max_completion_tokens").is_some();
        seen.lock().unwrap().push(body);
        if newer {
            Ok(([("content-type", "text/event-stream")], "data: [DONE]\n\n"))
        } else {
            let text = r#"{"error":{"message":"Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.","code":"unsupported_parameter"}}"#;
            Err((axum::http::StatusCode::BAD_REQUEST, text))
        }
    };
    let router = axum::Router::new().route("/chat/completions", post(answer));
    let provider = provider(&serve(router).await, &[]);
    for _ in 0..2 {
        ask(&provider, "hi").await.unwrap();
    }
    let asked: Vec<bool> = bodies
        .lock()
        .unwrap()
        .iter()
        .map(|body| body.get("max_tokens").is_some())
        .collect();
    assert_eq!(asked, [true, false, false]);
}

#[test]
fn settings_that_do_not_fit_are_named() {
    let error = |pairs: &[(&'static str, &str)]| Provider::new(&config(pairs)).err().map(|error| error.to_string());
    assert!(Provider::new(&config(&[])).unwrap().is_none());
    let urls = ("GPT_BASE_URL", "http://127.0.0.1:1,http://127.0.0.1:2");
    for (name, value) in [
        ("GPT_API_KEY", "a,b,c"),
        ("GPT_MODEL", "a,b,c"),
        ("GPT_API_KEY", "a\nb"),
    ] {
        let error = error(&[urls, (name, value)]).unwrap();
        assert!(error.contains(name) && !error.contains("a,b"), "{error}");
    }
}
