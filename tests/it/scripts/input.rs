//! What operations stand for in a room as it is now: drafts, targets and bounds.

use roomcast::model::{EventKind, Position, UserId};
use roomcast::redis::{After, Authority, Draft};

use super::op::{Bound, Right, Target, USERS, What, Words, text};
use super::run::Run;

impl Run<'_> {
    /// The draft that an operation means.
    pub fn draft(&self, room: usize, words: &Words) -> Draft {
        let (kind, target, right) = match &words.what {
            What::Message => (EventKind::Message, None, Right::Author),
            What::Gpt => (EventKind::Gpt, None, Right::Author),
            What::Edit(target, right) => (EventKind::Edit, Some(self.target(room, target)), *right),
            What::Delete(target, right) => (EventKind::Delete, Some(self.target(room, target)), *right),
        };
        let user = USERS[words.user];
        Draft {
            prefix: format!(
                r#"{{"platformid":"{user}","message":"{}","kind":"{}""#,
                text(words.content),
                kind.as_str()
            ),
            kind,
            user: UserId::new(user).unwrap(),
            target,
            authority: match right {
                Right::Author => Authority::Author,
                Right::Owner => Authority::Owner,
                Right::Checked => Authority::Checked,
            },
            cid: words.cid.map(|cid| cid.to_string()),
            hash: words.content as u64,
            trace: if words.content == 1 {
                "00-4bf92f35-00f067aa-01".to_owned()
            } else {
                String::new()
            },
            asks: None,
            answers: None,
        }
    }

    fn target(&self, room: usize, target: &Target) -> String {
        let (ids, top) = (&self.ids[room], self.state.rooms[room].top);
        match target {
            Target::Foreign => "legacy-7".to_owned(),
            Target::Any(index) if !ids.is_empty() => index.get(ids).clone(),
            Target::Newest if !ids.is_empty() => ids[ids.len() - 1].clone(),
            Target::Padded(index) if !ids.is_empty() => format!("0{}", index.get(ids)),
            _ => Position {
                ts: top.ts,
                seq: top.seq + 1000,
            }
            .to_string(),
        }
    }

    /// The bound that an operation means.
    pub fn bound(&self, room: usize, bound: &Bound) -> After {
        let near = |number: u64, off: i8| number.saturating_add_signed(i64::from(off));
        let place = |index: &proptest::sample::Index| {
            let places = &self.places[room];
            if places.is_empty() {
                Position::default()
            } else {
                *index.get(places)
            }
        };
        match bound {
            Bound::Start => After::Start,
            Bound::Position(index, off) => {
                let Position { ts, seq } = place(index);
                After::Position(Position {
                    ts,
                    seq: near(seq, *off),
                })
            }
            Bound::Time(index, off) => After::Time(near(place(index).ts, *off)),
            Bound::Seq(index, off) => After::Seq(near(place(index).seq, *off)),
            // the largest numbers that a client can name
            Bound::Beyond(0) => After::Time(9_000_000_000_000_000),
            Bound::Beyond(1) => After::Seq(9_000_000_000_000_000),
            Bound::Beyond(_) => After::Position(Position {
                ts: u64::MAX,
                seq: u64::MAX,
            }),
        }
    }
}
