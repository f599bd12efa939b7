//! The traces of recently read events, for reminders that are sent later.

use super::carrier::value;
use super::{TRACEPARENT, extract};
use bytes::Bytes;
use foretell_events::record::Header;
use opentelemetry::Context;
use std::collections::{HashMap, VecDeque};

/// Events whose trace is remembered; the oldest is dropped first. Each takes about 150 bytes.
const EVENTS_MAX: usize = 4_096;

/// Traces by the id of their event.
#[derive(Debug, Default)]
pub struct Known {
    traces: HashMap<Bytes, Bytes>,
    order: VecDeque<Bytes>,
}

impl Known {
    /// Remembers the trace of a record, if its headers contain an event id and a trace.
    pub fn note(&mut self, headers: &[Header]) {
        let (Some(id), Some(trace)) = (value(headers, "ce_id"), value(headers, TRACEPARENT)) else { return };
        if self.traces.insert(id.clone(), trace.clone()).is_none() {
            self.order.push_back(id.clone());
        }
        if self.order.len() > EVENTS_MAX {
            self.order.pop_front().map(|oldest| self.traces.remove(&oldest));
        }
    }

    /// The trace of an event; empty if it is not known.
    pub fn of(&self, event_id: &str) -> Context {
        match self.traces.get(event_id.as_bytes()) {
            Some(trace) => extract(&[(TRACEPARENT.to_owned(), trace.clone())]),
            None => Context::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::TraceContextExt;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(id: usize) -> Vec<Header> {
        vec![("ce_id".into(), id.to_string().into()), (TRACEPARENT.into(), TRACE.into())]
    }

    #[test]
    fn the_latest_events_are_known_and_no_more_than_fit() {
        let mut known = Known::default();
        known.note(&[("ce_id".into(), "untraced".into())]);
        for id in 0..=EVENTS_MAX {
            known.note(&headers(id));
            known.note(&headers(id));
        }
        let is_known = |id: &str| known.of(id).span().span_context().is_valid();
        assert_eq!((is_known("0"), is_known("1"), is_known(&EVENTS_MAX.to_string())), (false, true, true));
        assert!(!is_known("untraced") && known.traces.len() == EVENTS_MAX && known.order.len() == EVENTS_MAX);
    }
}
