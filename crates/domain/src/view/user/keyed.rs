//! Requests with an idempotency key: the first one with a key counts, regardless of later ones.
//!
//! The API answers a repeated request from here, so it makes no difference which process received the first one.

use super::User;
use crate::view::RecordPosition;
use crate::view::recent::RECENT_MAX;
use crate::view::sketch::hash;
use foretell_events::Event;
use serde::{Deserialize, Serialize};

/// Requests with a key that a user's row remembers; the oldest is forgotten first, and its key is new again. There are
/// as many as recent events, so that no key is forgotten whose event would still be skipped as a repetition.
pub const KEYED_MAX: usize = RECENT_MAX;

/// A request with an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedRequest {
    /// Hash of the event's id, which is derived from the key.
    pub key: u64,
    /// Hash of the digest of the request.
    pub digest: u64,
    /// The offset of the first one in its partition.
    pub offset: i64,
    /// Whether it changed anything.
    pub is_applied: bool,
}

impl User {
    /// The first request with the key from which an event id was derived.
    pub fn keyed(&self, event_id: &str) -> Option<&KeyedRequest> {
        let key = hash(event_id);
        self.keyed.iter().find(|keyed| keyed.key == key)
    }

    /// Remembers a request, if it has a key.
    pub(super) fn remember_key(&mut self, event: &Event, place: RecordPosition, is_applied: bool) {
        let Some(digest) = event.fact.idempotency_digest() else { return };
        let (key, digest) = (hash(&event.envelope.id), hash(digest));
        self.keyed.push(KeyedRequest { key, digest, offset: place.offset, is_applied });
        if self.keyed.len() > KEYED_MAX {
            self.keyed.remove(0);
        }
    }
}

impl KeyedRequest {
    /// Whether it was the same request.
    pub fn is(&self, digest: &str) -> bool {
        self.digest == hash(digest)
    }
}
