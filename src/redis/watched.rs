//! What is counted and traced of posts.

use prometheus::IntCounter;
use tracing::Span;

use super::Draft;
use super::posted::{Outcome, Posted};
use crate::model::RoomId;
use crate::telemetry::trace::{self, Step};
use crate::telemetry::{Labelled, Metrics};

/// Counts what posts have brought: the first two steps of a delivery.
#[derive(Clone)]
pub(super) struct PostMeter {
    accepted: IntCounter,
    published: IntCounter,
    replies: Labelled<1>,
}

impl PostMeter {
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            accepted: metrics.events_accepted_total.clone(),
            published: metrics.events_published_total.clone(),
            replies: metrics.gpt_replies_total.clone(),
        }
    }

    /// Counts the new events of an answer of `post`, and the nodes that each was handed to.
    pub fn count(&self, outcomes: &[Outcome]) {
        let receivers = outcomes.iter().filter_map(|outcome| outcome.receivers);
        let (accepted, published) = receivers.fold((0, 0), |(events, copies), n| (events + 1, copies + n));
        self.accepted.inc_by(accepted);
        self.published.inc_by(published);
        let unqueued = outcomes.iter().filter(|outcome| outcome.is_unqueued).count();
        if unqueued > 0 {
            tracing::warn!(unqueued, "an outbox of questions is full: is there a worker?");
            self.replies.add(["queue_full"], unqueued as u64);
        }
    }
}

/// The posts of these drafts, each in the trace that it belongs to; none where none belongs to one, as most do.
pub(super) fn begin(room: &RoomId, drafts: &[Draft]) -> Vec<Span> {
    if drafts.iter().all(|draft| draft.trace.is_empty()) {
        return Vec::new();
    }
    let posts = drafts.iter().map(|draft| trace::continued(&draft.trace, Step::Post));
    posts
        .inspect(|span| trace::note(span, "roomcast.room", room.to_string()))
        .collect()
}

/// The context that a draft is stored with: that of its post, or its own where nothing is exported here.
pub(super) fn context(spans: &[Span], index: usize, draft: &Draft) -> String {
    let of = |span| trace::context_of(span, &draft.trace);
    spans.get(index).map_or_else(String::new, of)
}

/// Notes what became of them.
pub(super) fn end(spans: &[Span], posted: &[Posted]) {
    for (span, posted) in spans.iter().zip(posted) {
        if let Posted::Stored(receipt) = posted {
            trace::note(span, "roomcast.message", receipt.id.clone());
        }
    }
}
