//! The mark in the text of each message: whose it is, which of theirs it is, and when it was meant to go.

/// What a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The sender's fleet: rooms that existed before hold the messages of others.
    pub fleet: u32,
    /// Index of the sender in its fleet.
    pub sender: u32,
    /// Which of the sender's messages, from 1.
    pub number: u32,
    /// When it was meant to be sent, Unix time in µs: what waits behind a stalled server counts as late.
    pub meant: u64,
}

/// Borders of a mark; nothing else in a message may have them.
const BORDER: u8 = b'~';

impl Mark {
    /// A text of at least `bytes` bytes that begins with the mark.
    pub fn text(&self, bytes: usize) -> String {
        let mut text = format!("~{}:{}:{}:{}~", self.fleet, self.sender, self.number, self.meant);
        while text.len() < bytes {
            text.push('x');
        }
        text
    }

    /// The first mark in `bytes`, and where it ends.
    pub fn find(bytes: &[u8]) -> Option<(Self, usize)> {
        let begin = bytes.iter().position(|byte| *byte == BORDER)? + 1;
        let length = bytes[begin..].iter().position(|byte| *byte == BORDER)?;
        let text = std::str::from_utf8(&bytes[begin..begin + length]).ok()?;
        let mut fields = text.split(':');
        let mark = Self {
            fleet: fields.next()?.parse().ok()?,
            sender: fields.next()?.parse().ok()?,
            number: fields.next()?.parse().ok()?,
            meant: fields.next()?.parse().ok()?,
        };
        fields.next().is_none().then_some((mark, begin + length + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_is_found_in_an_event() {
        let mark = Mark {
            fleet: 3,
            sender: 12,
            number: 7,
            meant: 1_800_000_000_000_000,
        };
        let event = format!(r#"42["message",{{"message":"{}","seq":9}}]"#, mark.text(60));
        assert!(mark.text(60).len() == 60 && mark.text(0).len() < 60);
        let (found, end) = Mark::find(event.as_bytes()).unwrap();
        assert_eq!(found, mark);
        assert_eq!(Mark::find(&event.as_bytes()[end..]), None);
        for other in ["", "~", "~1:2:3~", "~1:2:3:4:5~", "~a:2:3:4~"] {
            assert_eq!(Mark::find(other.as_bytes()), None);
        }
    }
}
