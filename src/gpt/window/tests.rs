use super::*;

fn message(seq: usize, kind: &str, user: &str, text: &str) -> Box<RawValue> {
    let json = serde_json::json!({"id": format!("{seq}0-{seq}"), "kind": kind, "username": user, "message": text, "seq": seq, "own": {"a": [1]}});
    RawValue::from_string(json.to_string()).unwrap()
}

/// The texts of the turns after the system prompt, and the window.
fn ask(room: &[Box<RawValue>], question: usize, start: Option<&str>, budget: usize) -> (Vec<String>, Window) {
    let room: Vec<&RawValue> = room.iter().map(AsRef::as_ref).collect();
    let ask = Ask {
        system: "Be brief.",
        room: &room,
        question: room[question],
        start,
        summary: None,
        budget,
    };
    let window = choose(&ask, &TokenCounter::new()).unwrap();
    assert_eq!(window.turns[0].role, Role::System);
    (window.turns[1..].iter().map(|turn| turn.text.clone()).collect(), window)
}

fn talk(messages: usize) -> Vec<Box<RawValue>> {
    (1..=messages)
        .map(|seq| {
            message(
                seq,
                if seq % 3 == 0 { "gpt" } else { "message" },
                "kim",
                &format!("word word word {seq}"),
            )
        })
        .collect()
}

#[test]
fn members_and_the_model_take_turns() {
    let room = [
        message(1, "message", "kim", "hi"),
        message(2, "gpt", "gpt", "hello"),
        message(3, "message", "李雷", "why?"),
    ];
    let (_, window) = ask(&room, 2, None, 1000);
    let turns: Vec<_> = window.turns[1..]
        .iter()
        .map(|turn| (turn.role, turn.name.as_deref(), turn.text.as_str()))
        .collect();
    assert_eq!(
        turns,
        [
            (Role::User, Some("kim"), "hi"),
            (Role::Assistant, None, "hello"),
            (Role::User, Some("李雷"), "why?")
        ]
    );
    assert_eq!(window.start.as_deref(), Some("10-1"));
}

#[test]
fn the_question_is_last_and_only_replies_may_have_come_after_it() {
    let room = [
        message(1, "message", "kim", "first question"),
        message(2, "message", "lee", "second question"),
        message(3, "message", "kim", "later"),
        message(4, "gpt", "gpt", "first answer"),
    ];
    let (texts, _) = ask(&room, 1, None, 1000);
    assert_eq!(texts, ["first question", "first answer", "second question"]);
}

#[test]
fn a_prompt_begins_with_a_member() {
    let room = [
        message(1, "gpt", "gpt", "an answer to what?"),
        message(2, "message", "kim", "hi"),
        message(3, "message", "kim", "why"),
    ];
    let (texts, _) = ask(&room, 2, None, 1000);
    assert_eq!(texts, ["hi", "why"]);
}

#[test]
fn what_has_no_text_is_left_out_and_an_edited_question_counts_as_edited() {
    let asked = message(3, "message", "kim", "old");
    let picture = RawValue::from_string(r#"{"id":"p","kind":"message","message":"  ","image":"x"}"#.into()).unwrap();
    let odd = RawValue::from_string(r#"{"id":7,"message":{"a":1}}"#.into()).unwrap();
    let (deleted, edited) = (message(2, "delete", "kim", "x"), message(3, "message", "kim", "new"));
    let room = [&*picture, &*odd, &*deleted, &*edited];
    let mut ask = Ask {
        system: "",
        room: &room,
        question: &asked,
        summary: None,
        start: None,
        budget: 1000,
    };
    let counter = TokenCounter::new();
    let window = choose(&ask, &counter).unwrap();
    assert_eq!(
        window.turns.iter().map(|turn| turn.text.as_str()).collect::<Vec<_>>(),
        ["new"]
    );
    ask.question = &picture;
    assert_eq!(choose(&ask, &counter), None);
}

#[test]
fn over_budget_it_is_cut_to_four_fifths() {
    let room = talk(200);
    let (texts, window) = ask(&room, 199, None, 500);
    assert!((350..=400).contains(&window.tokens), "{}", window.tokens);
    assert_eq!(texts.last().unwrap(), "word word word 200");
    assert_eq!(window.turns[1].role, Role::User);
}

#[test]
fn the_beginning_stays_until_the_budget_is_used_up() {
    let room = talk(300);
    let (mut start, mut begun, mut cuts) = (None::<String>, None, 0);
    for question in (100..300).filter(|index| (index + 1) % 3 != 0) {
        let (texts, window) = ask(&room[..=question], question, start.as_deref(), 500);
        assert!(window.tokens <= 500);
        if begun.as_ref() != texts.first() {
            cuts += 1;
            begun = texts.first().cloned();
        }
        start = window.start;
    }
    // A fifth of the budget holds about ten messages, of which the questions are two thirds.
    assert!((15..=25).contains(&cuts), "{cuts}");
}

#[test]
fn a_question_larger_than_the_budget_stands_alone() {
    let room = [
        message(1, "message", "kim", "hi"),
        message(2, "message", "kim", &"long ".repeat(100)),
    ];
    let (texts, window) = ask(&room, 1, None, 50);
    assert_eq!(texts.len(), 1);
    assert_eq!(window.start.as_deref(), Some("20-2"));
    assert!(window.tokens > 100);
}

#[test]
fn a_start_that_is_gone_is_no_fault() {
    let room = talk(5);
    let (texts, _) = ask(&room, 4, Some("deleted"), 1000);
    assert_eq!(texts.len(), 5);
}

#[test]
fn what_is_left_out_goes_from_the_summary_to_the_window() {
    let room = talk(9);
    let room: Vec<&RawValue> = room.iter().map(AsRef::as_ref).collect();
    let counter = TokenCounter::new();
    let out = left_out(&room, "70-7", 3, 1000, &counter).unwrap();
    assert_eq!(
        (out.text.as_str(), out.seq),
        (
            "kim: word word word 4\nkim: word word word 5\nassistant: word word word 6\n",
            6
        )
    );
    assert_eq!(left_out(&room, "70-7", 6, 1000, &counter), None);
    assert_eq!(left_out(&room, "of before", 3, 1000, &counter), None);
    // Of more than fits the newest.
    let newest = left_out(&room, "70-7", 0, out.tokens, &counter).unwrap();
    assert_eq!(newest, out);
}

#[test]
fn summary_stands_before_the_messages_and_takes_of_their_room() {
    let room = talk(9);
    let room: Vec<&RawValue> = room.iter().map(AsRef::as_ref).collect();
    let mut ask = Ask {
        system: "Be brief.",
        room: &room,
        question: room[7],
        summary: None,
        start: None,
        budget: 90,
    };
    let without = choose(&ask, &TokenCounter::new()).unwrap();
    ask.summary = Some("a boat left for the islands and came back at the turn of the tide with nobody in it");
    let with = choose(&ask, &TokenCounter::new()).unwrap();
    assert_eq!((with.turns[1].role, with.turns[1].name.as_ref()), (Role::User, None));
    assert!(with.turns[1].text.contains("a boat left"));
    assert!(
        with.tokens <= 90 && with.turns.len() - 1 < without.turns.len(),
        "{with:?}"
    );
}
