//! Cursors without an epoch, near the opening of one.
//!
//! A timestamp does not say which server gave it. When a server is replaced its last events may be lost, and they may be
//! younger than the first ones of its successor: whoever holds the time of such an event would never see those. So a time
//! shortly after an epoch's opening is taken for one before it. What a client gets twice it knows by its id; what it
//! never gets it cannot know.

use crate::model::{Epoch, Seq, UnixMs};

/// How long a server may have gone on after its successor had begun, with all that clocks differ: nodes leave a server
/// that does not answer, or that the others have given up, within 10 s.
const OVERLAP_MS: UnixMs = 20_000;

/// The place before an epoch's first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// The number after which the epoch begins.
    pub after: Seq,
    /// A time before all of its events, Unix ms.
    pub before: UnixMs,
}

/// The opening that a client must go back to whose newest event has this time; `None` when the time is as good as a place.
pub fn opening_before(epochs: &[(Epoch, Seq)], ts: UnixMs) -> Option<Opening> {
    // Before the first one there is nothing that could have been lost.
    epochs.iter().skip(1).find_map(|(epoch, first)| {
        let opened = epoch.opened_ms()?;
        let is_near = (opened..opened.saturating_add(OVERLAP_MS)).contains(&ts);
        is_near.then(|| Opening {
            after: first.saturating_sub(1),
            before: opened.saturating_sub(1),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_shortly_after_an_opening_goes_back_to_it() {
        let epochs = [
            ("aaaaaaaa-1000000000", 1),
            ("bbbbbbbb-2000000000", 11),
            ("cccccccc-2005000000", 21),
        ]
        .map(|(epoch, first)| (Epoch::from(epoch), first));
        let back = |ts| opening_before(&epochs, ts).map(|opening| (opening.after, opening.before));
        assert_eq!(back(1_000_500), None, "the first epoch has no predecessor");
        assert_eq!(back(1_999_999), None);
        assert_eq!(back(2_000_000), Some((10, 1_999_999)));
        assert_eq!(back(2_006_000), Some((10, 1_999_999)), "to the earlier one of two");
        assert_eq!(back(2_021_000), Some((20, 2_004_999)));
        assert_eq!(back(2_025_000), None);
        assert_eq!(opening_before(&[(Epoch::from("x"), 1), (Epoch::from("y"), 2)], 5), None);
    }
}
