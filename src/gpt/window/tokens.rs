//! How many tokens a text has, remembered.

use moka::sync::Cache;
use tiktoken_rs::{CoreBPE, o200k_base_singleton};
use xxhash_rust::xxh3::xxh3_128;

/// Texts whose counts are remembered, some 10 MB: a thousand messages of a hundred rooms that ask.
const COUNTS_MAX: u64 = 100_000;
/// Bytes counted at once: the tokenizer's expression panics on a run of spaces of a megabyte, which an old archive may
/// hold. A cut costs a token at most.
const PART: usize = 16 * 1024;

/// Counts tokens of OpenAI's newer models; for other models it is an estimate.
///
/// Counts are kept by a hash of the text and not by message: an edit is another text, ids of two rooms may be equal.
pub struct TokenCounter {
    vocabulary: &'static CoreBPE,
    counts: Cache<u128, u32>,
}

impl Default for TokenCounter {
    fn default() -> Self {
        Self::new()
    }
}

impl TokenCounter {
    /// Loads the vocabulary, which is part of the program, once for the process: part of a second, some ten MB.
    pub fn new() -> Self {
        Self {
            vocabulary: o200k_base_singleton(),
            counts: Cache::new(COUNTS_MAX),
        }
    }

    /// The tokens of `text`.
    pub fn count(&self, text: &str) -> usize {
        let count = self.counts.get_with(xxh3_128(text.as_bytes()), || {
            let tokens: usize = parts(text).map(|part| self.vocabulary.count_ordinary(part)).sum();
            u32::try_from(tokens).unwrap_or(u32::MAX)
        });
        count as usize
    }
}

/// `text` in parts of whole characters.
fn parts(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let end = (0..=PART.min(text.len()))
            .rev()
            .find(|end| text.is_char_boundary(*end))?;
        let (part, rest) = text.split_at(end);
        text = rest;
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_as_the_models_do() {
        let counter = TokenCounter::new();
        assert_eq!(counter.count(""), 0);
        assert_eq!(counter.count("hello world"), 2);
        assert_eq!(counter.count("hello world"), 2);
        assert_eq!(counter.counts.iter().count(), 2);
    }

    #[test]
    fn no_text_takes_long_or_breaks_the_tokenizer() {
        // Far more than a message of ours can have.
        const LONG: usize = 1024 * 1024;
        let counter = TokenCounter::new();
        let started = std::time::Instant::now();
        for unit in [
            " ",
            "a",
            "\n",
            "\u{a0}",
            "🦀",
            "é",
            "'s",
            "<|endoftext|>",
            "\u{0}",
            " a",
            "A!",
            "aA",
        ] {
            assert!(counter.count(&unit.repeat(LONG / unit.len())) > 0, "{unit:?}");
            assert!(counter.count(&(unit.repeat(LONG / unit.len()) + "x")) > 0, "{unit:?}");
        }
        assert!(
            started.elapsed() < std::time::Duration::from_secs(20),
            "{:?}",
            started.elapsed()
        );
    }
}
