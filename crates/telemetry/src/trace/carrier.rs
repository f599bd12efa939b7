//! Writes traces into the headers of requests and records, and reads them.

use bytes::Bytes;
use foretell_events::record::Header;
use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// The trace in the headers of a request; empty if there is none.
pub fn caller(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Incoming(headers))
}

/// The trace in the headers of a record; empty if there is none.
pub fn extract(headers: &[Header]) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Stored(headers))
}

struct Incoming<'a>(&'a HeaderMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

pub(super) struct Outgoing<'a>(pub(super) &'a mut Vec<Header>);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        if !value.is_empty() {
            self.0.retain(|(name, _)| name != key);
            self.0.push((key.to_owned(), Bytes::from(value)));
        }
    }
}

struct Stored<'a>(&'a [Header]);

impl Extractor for Stored<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(value(self.0, key)?).ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// The last value of a header of a record.
pub(super) fn value<'a>(headers: &'a [Header], name: &str) -> Option<&'a Bytes> {
    headers.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value)
}
