//! What a room looks like in a terminal, and where it was left: every event once, however often it comes.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::{Value, json};
use time::{OffsetDateTime, UtcOffset};

use super::words::clean;

/// Messages shown of a room's history; a screen or two.
const HISTORY_SHOWN: usize = 50;
/// Events remembered against repetition: five times the longest answer to a join.
const SEEN_MAX: usize = 5000;

/// The place of an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    epoch: String,
    seq: u64,
}

impl Place {
    /// The place that an event or an acknowledgement names.
    pub fn of(value: &Value) -> Option<Self> {
        Some(Self {
            epoch: value["epoch"].as_str()?.to_owned(),
            seq: value["seq"].as_u64()?,
        })
    }
}

/// One room.
pub struct View {
    pub room: String,
    /// Only the messages of this user can be one's last.
    me: String,
    cursor: Option<Value>,
    joined_before: bool,
    seen: HashSet<Place>,
    seen_order: VecDeque<Place>,
    /// Message ids by the number shown, from `first_number`.
    ids: VecDeque<String>,
    first_number: usize,
    numbers: HashMap<String, usize>,
    my_last: Option<String>,
}

impl View {
    pub fn new(room: &str, me: &str) -> Self {
        Self {
            room: room.to_owned(),
            me: me.to_owned(),
            cursor: None,
            joined_before: false,
            seen: HashSet::new(),
            seen_order: VecDeque::new(),
            ids: VecDeque::new(),
            first_number: 1,
            numbers: HashMap::new(),
            my_last: None,
        }
    }

    /// The payload of `join`: from where the view ends.
    pub fn join(&self) -> Value {
        let mut join = json!({ "roomID": self.room });
        if let (Some(join), Some(Value::Object(cursor))) = (join.as_object_mut(), &self.cursor) {
            join.extend(cursor.clone());
        }
        join
    }

    /// The message of a number, or one's last.
    pub fn id_of(&self, number: Option<usize>) -> Option<&str> {
        match number {
            Some(number) => self.ids.get(number.checked_sub(self.first_number)?).map(String::as_str),
            None => self.my_last.as_deref(),
        }
    }

    /// Whether the event of this place has been shown.
    pub fn has_seen(&self, place: &Place) -> bool {
        self.seen.contains(place)
    }

    /// The answer to a join, as lines: the newest of the history at first, later exactly what was missed.
    pub fn previous(&mut self, events: &[Value], info: &Value) -> Vec<String> {
        let lines = if self.joined_before {
            self.missed(events, info)
        } else {
            self.history(events)
        };
        self.joined_before = true;
        self.cursor = Some(end_of(events, info));
        lines
    }

    fn history(&mut self, events: &[Value]) -> Vec<String> {
        let mut messages: Vec<Value> = Vec::new();
        for event in events {
            if !self.is_new(event) {
                continue;
            }
            let of = |message: &Value| message["id"] == event["id"];
            match event["kind"].as_str() {
                Some("edit") => {
                    if let Some(message) = messages.iter_mut().find(|message| of(message)) {
                        message["message"] = event["message"].clone();
                        message["rev"] = event["seq"].clone();
                    }
                }
                Some("delete") => messages.retain(|message| !of(message)),
                _ => messages.push(event.clone()),
            }
        }
        let hidden = messages.len().saturating_sub(HISTORY_SHOWN);
        let mut lines = vec![format!("* this is {}", clean(&self.room))];
        if hidden > 0 {
            lines.push(format!("* {hidden} older messages are not shown"));
        }
        lines.extend(messages.iter().skip(hidden).map(|message| self.message(message)));
        lines
    }

    fn missed(&mut self, events: &[Value], info: &Value) -> Vec<String> {
        let missed: Vec<String> = events.iter().filter_map(|event| self.event(event)).collect();
        let mut lines = Vec::new();
        if info["recovered"] == Value::Bool(false) {
            lines.push("* the server cannot tell whether more was missed than this".to_owned());
        }
        if !missed.is_empty() {
            lines.push(format!("* while you were away ({}):", missed.len()));
        }
        lines.extend(missed);
        lines
    }

    /// A live event as a line; `None` when it was shown already.
    pub fn live(&mut self, event: &Value) -> Option<String> {
        // Before the answer to the join the cursor still says from where to continue.
        if self.joined_before {
            self.cursor = Some(json!({ "epoch": event["epoch"], "seq": event["seq"], "ts": event["ts"] }));
        }
        self.event(event)
    }

    fn event(&mut self, event: &Value) -> Option<String> {
        if !self.is_new(event) {
            return None;
        }
        let id = event["id"].as_str().unwrap_or_default();
        let who = clean(event["username"].as_str().unwrap_or("?"));
        let number = self
            .numbers
            .get(id)
            .map_or_else(|| "an older message".to_owned(), |number| format!("#{number}"));
        Some(match event["kind"].as_str() {
            Some("edit") => format!("* {who} changed {number}: {}", text_of(event)),
            Some("delete") => format!("* {who} deleted {number}"),
            _ => self.message(event),
        })
    }

    fn message(&mut self, message: &Value) -> String {
        let id = message["id"].as_str().unwrap_or_default().to_owned();
        if message["platformid"] == self.me.as_str() {
            self.my_last = Some(id.clone());
        }
        self.ids.push_back(id.clone());
        let number = self.first_number + self.ids.len() - 1;
        self.numbers.insert(id, number);
        if self.ids.len() > SEEN_MAX
            && let Some(oldest) = self.ids.pop_front()
        {
            self.numbers.remove(&oldest);
            self.first_number += 1;
        }
        let who = clean(message["username"].as_str().unwrap_or("?"));
        let edited = if message["rev"].is_number() { " (edited)" } else { "" };
        format!("#{number} {} {who}: {}{edited}", clock(message), text_of(message))
    }

    fn is_new(&mut self, event: &Value) -> bool {
        let Some(place) = Place::of(event) else {
            // Not from this kind of server: better twice than never.
            return true;
        };
        if !self.seen.insert(place.clone()) {
            return false;
        }
        self.seen_order.push_back(place);
        if self.seen_order.len() > SEEN_MAX
            && let Some(oldest) = self.seen_order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }
}

/// Where the answer to a join ends: at its last event, else where the server says.
fn end_of(events: &[Value], info: &Value) -> Value {
    match events.last() {
        Some(last) if last["epoch"] == info["epoch"] && last["seq"].is_number() => {
            json!({ "epoch": last["epoch"], "seq": last["seq"], "ts": last["ts"] })
        }
        _ => json!({ "epoch": info["epoch"], "seq": info["topSeq"] }),
    }
}

fn text_of(message: &Value) -> String {
    match &message["message"] {
        Value::String(text) => clean(text),
        other => clean(&other.to_string()),
    }
}

/// The local time of a message.
fn clock(message: &Value) -> String {
    let at = message["ts"]
        .as_i64()
        .and_then(|ms| OffsetDateTime::from_unix_timestamp(ms / 1000).ok());
    at.map_or_else(String::new, |at| {
        let at = at.to_offset(UtcOffset::local_offset_at(at).unwrap_or(UtcOffset::UTC));
        format!("{:02}:{:02}", at.hour(), at.minute())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, kind: &str, id: &str, text: &str) -> Value {
        json!({ "epoch": "e", "seq": seq, "ts": seq, "kind": kind, "id": id, "message": text,
                "username": "kim", "platformid": "p-kim" })
    }

    fn info(top: u64, recovered: bool) -> Value {
        json!({ "epoch": "e", "topSeq": top, "recovered": recovered })
    }

    fn ends(lines: &[String]) -> Vec<&str> {
        lines
            .iter()
            .map(|line| line.split_once(": ").map_or(line.as_str(), |(_, text)| text))
            .collect()
    }

    #[test]
    fn history_is_shown_as_it_stands_now() {
        let mut view = View::new("r", "p-kim");
        let events = [
            event(1, "message", "a", "one"),
            event(2, "message", "b", "two"),
            event(3, "edit", "a", "ONE"),
            event(4, "delete", "b", ""),
        ];
        let lines = view.previous(&events, &info(4, false));
        assert_eq!(ends(&lines), ["* this is r", "ONE (edited)"]);
        assert_eq!(view.id_of(Some(1)), Some("a"));
        assert_eq!(view.id_of(Some(0)), None);
        assert_eq!(view.join(), json!({ "roomID": "r", "epoch": "e", "seq": 4, "ts": 4 }));
    }

    #[test]
    fn what_was_missed_is_shown_once() {
        let mut view = View::new("r", "p-kim");
        view.previous(&[event(1, "message", "a", "one")], &info(1, false));
        assert!(view.live(&event(2, "message", "b", "two")).is_some());
        assert!(view.live(&event(2, "message", "b", "two")).is_none());
        let missed = [event(2, "message", "b", "two"), event(3, "edit", "b", "TWO")];
        let lines = view.previous(&missed, &info(3, true));
        assert_eq!(lines, ["* while you were away (1):", "* kim changed #2: TWO"]);
        assert!(view.previous(&[], &info(3, true)).is_empty());
        let lines = view.previous(&[event(1, "message", "a", "one")], &info(3, false));
        assert_eq!(lines.len(), 1, "only that continuity is lost: {lines:?}");
        assert_eq!(view.id_of(None), Some("b"));
    }

    #[test]
    fn a_live_event_before_the_join_is_answered_moves_no_cursor() {
        let mut view = View::new("r", "p-kim");
        assert!(view.live(&event(7, "message", "a", "one")).is_some());
        assert_eq!(view.join(), json!({ "roomID": "r" }));
    }

    #[test]
    fn long_histories_are_cut_and_say_so() {
        let mut view = View::new("r", "p-kim");
        let events: Vec<_> = (1..=60)
            .map(|seq| event(seq, "message", &format!("m{seq}"), "x"))
            .collect();
        let lines = view.previous(&events, &info(60, false));
        assert_eq!(lines.len(), HISTORY_SHOWN + 2);
        assert!(lines[1].contains("10 older"), "{}", lines[1]);
    }
}
