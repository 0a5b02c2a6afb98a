//! What is typed: lines, and the commands among them.

use std::io::BufRead;

use tokio::sync::mpsc;

/// Lines read ahead of the chat; a script that writes faster waits.
const LINES_AHEAD: usize = 16;

/// One line, understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Something to say.
    Say(String),
    /// Replace the text of a message: the one of this number, else one's last.
    Edit { number: Option<usize>, text: String },
    /// Remove a message: the one of this number, else one's last.
    Delete { number: Option<usize> },
    /// Go to another room.
    Join(String),
    /// List one's rooms.
    Rooms,
    /// List who belongs to the room.
    Who,
    /// List the commands.
    Help,
    /// Leave.
    Quit,
    /// Nothing.
    Empty,
    /// Not understood, and how to say it right.
    Wrong(String),
}

impl Line {
    /// Understands a line; `//` says a text that begins with a slash.
    pub fn parse(line: &str) -> Self {
        let line = line.trim_end();
        let Some(command) = line.strip_prefix('/') else {
            return if line.is_empty() {
                Self::Empty
            } else {
                Self::Say(line.to_owned())
            };
        };
        if command.starts_with('/') {
            return Self::Say(command.to_owned());
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match name {
            "edit" => {
                let (number, text) = numbered(rest);
                match text {
                    "" => Self::Wrong("write /edit #3 new text, or /edit new text for your last message".to_owned()),
                    text => Self::Edit {
                        number,
                        text: text.to_owned(),
                    },
                }
            }
            "delete" => match numbered(rest) {
                (number, "") => Self::Delete { number },
                _ => Self::Wrong("write /delete #3, or /delete for your last message".to_owned()),
            },
            "join" if !rest.is_empty() => Self::Join(rest.to_owned()),
            "join" => Self::Wrong("write /join and the room, such as /join room-1".to_owned()),
            "rooms" => Self::Rooms,
            "who" => Self::Who,
            "help" | "?" => Self::Help,
            "quit" | "exit" => Self::Quit,
            _ => Self::Wrong(format!("there is no /{name}; /help lists what there is")),
        }
    }
}

/// Splits a leading `#3` off.
fn numbered(text: &str) -> (Option<usize>, &str) {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    match first.strip_prefix('#').and_then(|number| number.parse().ok()) {
        Some(number) => (Some(number), rest.trim()),
        None => (None, text),
    }
}

/// Reads the standard input to its end.
///
/// On a thread of its own and not by the runtime: that would wait for a last line when the process ends.
pub fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut line = Vec::new();
        while input.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            if sender.blocking_send(text).is_err() {
                break;
            }
            line.clear();
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::Line;

    #[test]
    fn commands_are_told_from_texts() {
        let edit = |number, text: &str| Line::Edit {
            number,
            text: text.to_owned(),
        };
        for (line, meaning) in [
            ("hello /quit", Line::Say("hello /quit".to_owned())),
            ("//etc is a folder", Line::Say("/etc is a folder".to_owned())),
            ("  ", Line::Empty),
            ("/edit #12 new  text ", edit(Some(12), "new  text")),
            ("/edit 3 apples", edit(None, "3 apples")),
            ("/edit #one", edit(None, "#one")),
            ("/delete", Line::Delete { number: None }),
            ("/delete #2", Line::Delete { number: Some(2) }),
            ("/join room-1", Line::Join("room-1".to_owned())),
            ("/quit", Line::Quit),
        ] {
            assert_eq!(Line::parse(line), meaning, "{line}");
        }
        for line in ["/edit", "/edit #3", "/delete two", "/join", "/dance"] {
            assert!(matches!(Line::parse(line), Line::Wrong(_)), "{line}");
        }
    }
}
