//! One event of the demo, before it is a CloudEvent.

use foretell_events::{DEFAULT_TENANT, Envelope, Event, Fact};
use foretell_lab::source::Sourced;

/// The CloudEvents `source` of the story.
const SOURCE: &str = "urn:foretell:demo";

/// One event of the story.
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) time_ms: i64,
    pub(super) fact: Fact,
}

impl Entry {
    pub(super) fn sourced(self) -> Sourced {
        let Self { id, time_ms, fact } = self;
        let envelope = Envelope { id, source: SOURCE.into(), tenant: DEFAULT_TENANT.into(), time_ms };
        Sourced { event: Event { envelope, fact }, sent: None, label: None }
    }
}
