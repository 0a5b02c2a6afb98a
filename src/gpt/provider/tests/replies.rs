//! What a good reply is.

use super::*;

#[tokio::test]
async fn a_reply_comes_word_by_word_with_its_usage() {
    let (model, provider) = scripted(&[]).await;
    let mut reply = provider
        .stream(&prompt("@gpt id q1, why is the sky blue?"))
        .await
        .unwrap();
    assert_eq!(reply.next().await, Ok(Some(Piece::Text("You ".into()))));
    let outcome = drain(reply).await;
    assert_eq!(outcome.text, "asked: why is the sky blue?");
    assert_eq!(outcome.usage, Some((10, 7)));
    assert_eq!(outcome.finish, Some(Finish::Stop));
    assert_eq!(model.calls("q1"), 1);
}

#[tokio::test]
async fn why_a_reply_ended_is_told() {
    let (_, provider) = scripted(&[]).await;
    for (question, finish) in [("length, x", Finish::Length), ("filter, x", Finish::Filter)] {
        assert_eq!(ask(&provider, question).await.unwrap().finish, Some(finish));
    }
    let long = "word ".repeat(200);
    let outcome = ask(&provider, &long).await.unwrap();
    assert_eq!(outcome.finish, Some(Finish::Length));
    assert_eq!(outcome.text.split_whitespace().count(), 100);
}

#[tokio::test]
async fn markup_is_text_and_control_characters_are_gone() {
    let (_, provider) = scripted(&[]).await;
    let html = ask(&provider, "html").await.unwrap().text;
    assert!(
        html.contains("<script>alert(1)</script>") && html.contains("&amp;"),
        "{html}"
    );
    let control = ask(&provider, "control").await.unwrap().text;
    assert_eq!(control, "ab [31mred[0m cd\ne\tf 1mgh");
}

#[tokio::test]
async fn thoughts_are_not_shown_and_a_missing_end_mark_is_no_fault() {
    let stream = concat!(
        ": keep-alive\n\n",
        "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"hm\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"yes\"},\"finish_reason\":null}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n",
    );
    let outcome = ask(&fixed(stream).await, "x").await.unwrap();
    assert_eq!(
        (outcome.text.as_str(), outcome.finish, outcome.usage),
        ("yes", Some(Finish::Stop), Some((3, 2)))
    );
    assert_eq!(outcome.fault, None);
}

#[tokio::test]
async fn an_empty_reply_is_a_reply() {
    let stream =
        "data: {\"choices\":[{\"delta\":{\"content\":\"\"},\"finish_reason\":\"content_filter\"}]}\n\ndata: [DONE]\n\n";
    let outcome = ask(&fixed(stream).await, "x").await.unwrap();
    assert_eq!((outcome.text.as_str(), outcome.finish), ("", Some(Finish::Filter)));
}
