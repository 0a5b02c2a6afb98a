//! Server-sent events from bytes, in chunks of any cut, with a bound on one event.
//!
//! Own code because the usual crate, eventsource-stream 0.2, has had no release since 2022 and holds a line without an
//! end in memory whatever its length. Only `data` matters here; an event's name, id and retry time are read over.

/// The largest event: a token takes some 300 bytes, but an endpoint may send a whole short reply in one.
const MAX_EVENT: usize = 1024 * 1024;

/// An event larger than any token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EventTooLarge;

/// The state between two chunks.
#[derive(Default)]
pub(super) struct Parser {
    /// The line so far.
    line: Vec<u8>,
    /// The data lines of the event so far, each with a line feed at its end.
    data: Vec<u8>,
    /// Whether the last byte was a carriage return: a line feed right after it belongs to it.
    after_cr: bool,
    /// Whether a first line was read: only that may begin with a byte order mark.
    started: bool,
}

impl Parser {
    /// Reads `chunk` and appends the data of every event that it completes to `events`.
    pub(super) fn push(&mut self, mut chunk: &[u8], events: &mut Vec<Vec<u8>>) -> Result<(), EventTooLarge> {
        if self.after_cr && !chunk.is_empty() {
            chunk = chunk.strip_prefix(b"\n").unwrap_or(chunk);
            self.after_cr = false;
        }
        while let Some(end) = chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.extend(&chunk[..end])?;
            self.end_line(events);
            let rest = &chunk[end + 1..];
            chunk = match chunk[end] {
                b'\r' if rest.is_empty() => {
                    self.after_cr = true;
                    rest
                }
                b'\r' => rest.strip_prefix(b"\n").unwrap_or(rest),
                _ => rest,
            };
        }
        self.extend(chunk)
    }

    fn extend(&mut self, part: &[u8]) -> Result<(), EventTooLarge> {
        if self.data.len() + self.line.len() + part.len() > MAX_EVENT {
            return Err(EventTooLarge);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn end_line(&mut self, events: &mut Vec<Vec<u8>>) {
        let mut line = self.line.as_slice();
        if !self.started {
            self.started = true;
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            // An event without data is none.
            if self.data.pop().is_some() {
                events.push(std::mem::take(&mut self.data));
            }
        } else if let Some(value) = line.strip_prefix(b"data") {
            if let Some(value) = value.strip_prefix(b":") {
                self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
                self.data.push(b'\n');
            } else if value.is_empty() {
                self.data.push(b'\n');
            }
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> Vec<String> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for chunk in chunks {
            parser.push(chunk, &mut events).unwrap();
        }
        events
            .into_iter()
            .map(|event| String::from_utf8(event).unwrap())
            .collect()
    }

    #[test]
    fn lines_end_with_lf_cr_or_both() {
        for stream in [
            "data: a\n\ndata:b\n\n",
            "data: a\r\n\r\ndata:b\r\n\r\n",
            "data: a\r\rdata:b\r\r",
        ] {
            assert_eq!(read(&[stream.as_bytes()]), ["a", "b"], "{stream:?}");
        }
    }

    #[test]
    fn comments_names_and_unknown_fields_are_read_over() {
        let stream = "\u{feff}: hello\n\n:\nevent: x\nid: 7\nretry: 10\ndatabase: no\ndata: yes\n\nevent: empty\n\n";
        assert_eq!(read(&[stream.as_bytes()]), ["yes"]);
    }

    #[test]
    fn several_data_lines_are_one_event() {
        assert_eq!(
            read(&[b"data: {\ndata:  \"a\": 1\ndata\ndata: }\n\n"]),
            ["{\n \"a\": 1\n\n}"]
        );
    }

    #[test]
    fn an_event_without_its_empty_line_never_comes() {
        assert_eq!(read(&[b"data: whole\n\ndata: cut\n"]), ["whole"]);
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        let chunk = vec![b'x'; 64 * 1024];
        let refused = (0..100).position(|_| parser.push(&chunk, &mut events).is_err());
        assert_eq!(refused, Some(MAX_EVENT / chunk.len()));
        let (mut parser, line) = (Parser::default(), [b"data: ".as_slice(), &chunk, b"\n"].concat());
        assert!((0..100).any(|_| parser.push(&line, &mut events).is_err()));
        assert!(events.is_empty());
    }

    proptest! {
        #[test]
        fn the_cut_of_chunks_changes_nothing(cuts in prop::collection::vec(0usize..60, 0..8)) {
            let stream = "data: gr\u{fc}\u{df} 🦀\r\n\r\n: ping\r\ndata: a\r\ndata: b\r\n\r\ndata: [DONE]\n\n".as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&stream[from..cut]);
                from = cut;
            }
            chunks.push(&stream[from..]);
            prop_assert_eq!(read(&chunks), ["grüß 🦀", "a\nb", "[DONE]"]);
        }
    }
}
