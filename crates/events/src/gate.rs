//! The gate: which events are rejected on their way in, for all ways in.
//!
//! The [codec](super::codec) determines whether bytes are an event at all. The gate determines whether a sender may
//! send that event, and every path uses it: `POST /v1/events`, an import with and without a running service, events
//! that the API writes (feedback, devices, requests for a reminder, policies), a redriven dead letter, and the pipeline
//! for records that producers write to Kafka directly.
//!
//! | rule | applies to | code |
//! |---|---|---|
//! | it belongs to the tenant of the caller | HTTP, import | `TENANT_MISMATCH` |
//! | its type is not one that only Foretell writes | all except events of Foretell itself | `NOT_ACCEPTED` |
//! | its type belongs to the topic of the file | import | `NOT_ACCEPTED` |
//! | its source is not one that Foretell uses itself | callers; not an operator who imports their own export | `RESERVED_SOURCE` |
//! | its country is one ([`country`]) | all; producers' records from a recorded time on | `INVALID_VALUE` |
//! | it is a strict CloudEvent, without duplicate members | all; producers' records from a recorded time on | of the codec |
//! | it happened at most five minutes after it arrived | all | `TIME_IN_FUTURE` |
//! | its unknown fields fit into [`UNKNOWN_BYTES_MAX`] | all except producers' records | none: the rest is dropped and counted |
//! | its user agent has at most [`USER_AGENT_KEPT_BYTES`] | all except producers' records | none: it is truncated |
//!
//! A producer that writes to a topic directly can use any source: a record does not prove who wrote it, so write
//! permissions on topics must be enforced by the broker.
//!
//! The gate never changes the past. The log is folded again and again, and a folded record stays folded: [`record`] is
//! applied only to records that the log accepted at or after a time that is stored with the rows (`gated_from_ms` of
//! the pointer in `foretell_domain::pointer`).

use super::codec::bounds::USER_AGENT_KEPT_BYTES;
use super::codec::{self, Fault, Faults, INVALID_VALUE, Parsed};
use super::{Event, Fact, Topic, country};
use crate::login::LoginFact;
use crate::record::{NewRecord, Record};
use serde_json::{Map, Value};

/// The event has a different tenant than the caller.
pub const TENANT_MISMATCH: &str = "TENANT_MISMATCH";
/// The sender may not send events of this type.
pub const NOT_ACCEPTED: &str = "NOT_ACCEPTED";
/// The event has a source that only Foretell uses.
pub const RESERVED_SOURCE: &str = "RESERVED_SOURCE";

/// Every code that the gate adds to [those of the codec](codec::CODES).
pub const CODES: [&str; 3] = [TENANT_MISMATCH, NOT_ACCEPTED, RESERVED_SOURCE];

/// The `source` of events that the API writes itself.
pub const API_SOURCE: &str = "urn:foretell:api";
/// The `source` of reminders.
pub const REMINDERS_SOURCE: &str = "urn:foretell:reminders";
/// The `source` of decisions.
pub const DECISIONS_SOURCE: &str = "urn:foretell:decisions";

/// Sources that Foretell uses. A caller with one of them could also use the ids of events that Foretell is about to
/// write, and thereby turn those into repetitions.
const RESERVED: [&str; 3] = [API_SOURCE, REMINDERS_SOURCE, DECISIONS_SOURCE];

/// Most bytes of unknown fields and extension attributes that are passed on with an event, as JSON.
pub const UNKNOWN_BYTES_MAX: usize = 4 * 1024;

/// Who sends events: decides which types and sources are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// A caller of the API: logins and appointments, from sources other than Foretell's.
    Caller,
    /// An operator who imports an export: logins and appointments from any source.
    Operator {
        /// The only topic whose events are accepted; `None` accepts both.
        topic: Option<Topic>,
    },
    /// Foretell itself: every type, from any source.
    Foretell,
}

/// The conditions under which events are accepted.
#[derive(Debug, Clone, Copy)]
pub struct GateContext<'a> {
    /// When they arrive, in milliseconds since the epoch.
    pub now_ms: i64,
    /// The tenant that they must belong to; without it, any.
    pub tenant: Option<&'a str>,
    /// Who sends them.
    pub sender: Sender,
}

impl GateContext<'_> {
    /// The terms of an operator: any tenant, any source.
    pub const fn of_operator(now_ms: i64) -> Self {
        Self { now_ms, tenant: None, sender: Sender::Operator { topic: None } }
    }

    /// Accepts an event, or returns everything that is wrong with it.
    pub fn check(&self, event: &Event) -> Result<(), Faults> {
        let mut faults = Vec::new();
        if let Some(tenant) = self.tenant.filter(|tenant| *tenant != event.envelope.tenant) {
            faults.push(Fault::new("/tenant", TENANT_MISMATCH, format!("the request is for the tenant \"{tenant}\"")));
        }
        faults.extend(self.not_accepted(&event.fact));
        if self.sender == Sender::Caller && is_reserved(&event.envelope.source) {
            let detail = "only Foretell uses this source; to import your own export, use `foretell import` \
                          with a key that has the scope admin";
            faults.push(Fault::new("/source", RESERVED_SOURCE, detail));
        }
        faults.extend(not_a_country(event));
        for checked in [codec::check_texts(&event.envelope), codec::check_time(event, self.now_ms)] {
            faults.extend(checked.err().map(Faults::into_vec).unwrap_or_default());
        }
        Faults::none_of((), faults)
    }

    /// A fault if the sender may not send the type.
    fn not_accepted(&self, fact: &Fact) -> Option<Fault> {
        let is_own = !fact.topic().takes_producers();
        let detail = match self.sender {
            Sender::Foretell => return None,
            Sender::Caller | Sender::Operator { .. } if is_own => {
                format!("only Foretell writes {}", fact.type_name())
            }
            Sender::Operator { topic: Some(only) } if only != fact.topic() => {
                format!("{} is not a type of the topic {}", fact.type_name(), only.name())
            }
            Sender::Caller | Sender::Operator { .. } => return None,
        };
        Some(Fault::new("/type", NOT_ACCEPTED, detail))
    }

    /// An accepted event, to be written.
    pub fn admit(&self, parsed: Parsed) -> Result<Admitted, Faults> {
        self.check(&parsed.event).map(|()| Admitted(parsed))
    }
}

/// The event of a record that a producer may write: by the codec's rules for incoming events, and by the rules above
/// that apply to all. [`codec::check_record`] checks its topic, key and partition.
pub fn record(record: &Record) -> Result<Event, Faults> {
    let event = codec::decode_incoming(record)?;
    let faults = not_a_country(&event).into_iter().collect();
    Faults::none_of(event, faults)
}

/// Case-insensitive, as the schemes of URNs are compared.
fn is_reserved(source: &str) -> bool {
    RESERVED.iter().any(|reserved| source.eq_ignore_ascii_case(reserved))
}

fn not_a_country(event: &Event) -> Option<Fault> {
    let code = event.fact.country().filter(|code| !country::exists(code))?;
    Some(Fault::new("/data/country", INVALID_VALUE, country::unknown(code)))
}

/// An accepted event: only these are appended as facts.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted(Parsed);

impl Admitted {
    /// An event that Foretell writes itself, of any type; otherwise it is checked like any other.
    pub fn own(event: Event) -> Result<Self, Faults> {
        let terms = GateContext { now_ms: event.envelope.time_ms, tenant: None, sender: Sender::Foretell };
        terms.admit(Parsed::of(event))
    }

    /// The event.
    pub const fn event(&self) -> &Event {
        &self.0.event
    }

    /// The event with its original data, to be completed.
    pub const fn parsed_mut(&mut self) -> &mut Parsed {
        &mut self.0
    }

    /// The record to append, and how many unknown fields and attributes it omits.
    pub fn into_record(mut self) -> (NewRecord, usize) {
        cut_user_agent(&mut self.0);
        let record = codec::encode_parsed(&self.0);
        // Nearly all events are smaller as a whole than the limit of their unknown parts.
        if record.value.len() <= UNKNOWN_BYTES_MAX && self.0.extensions.is_empty() {
            return (record, self.0.dropped);
        }
        match trim(&mut self.0) {
            0 => (record, 0),
            dropped => (codec::encode_parsed(&self.0), dropped),
        }
    }
}

/// Drops unknown fields and attributes that do not fit into [`UNKNOWN_BYTES_MAX`]: extension attributes are kept first,
/// then fields, both in their order; one that is too large is dropped, and a later one that fits is kept. Known fields
/// stay, but a user agent is truncated. Returns how many were dropped, including those that were omitted when the event
/// was read; a second call returns 0.
pub fn trim(parsed: &mut Parsed) -> usize {
    cut_user_agent(parsed);
    let mut budget = UnknownFieldBudget { left: UNKNOWN_BYTES_MAX, dropped: std::mem::take(&mut parsed.dropped) };
    parsed.extensions.retain(|(name, text)| budget.fits(name.len() + text.len()));
    budget.trim(&mut parsed.data, &parsed.event.fact.data());
    budget.dropped
}

/// Replaces a longer user agent in the data by the truncated one of the event.
fn cut_user_agent(parsed: &mut Parsed) {
    let Fact::Login(LoginFact::Attempted(login)) = &parsed.event.fact else { return };
    let kept = login.attempt.user_agent.as_deref().unwrap_or_default();
    if let Some(Value::String(sent)) = parsed.data.get_mut("user_agent")
        && sent.len() > USER_AGENT_KEPT_BYTES
    {
        kept.clone_into(sent);
    }
}

/// Remaining bytes for unknown fields and attributes.
struct UnknownFieldBudget {
    left: usize,
    dropped: usize,
}

impl UnknownFieldBudget {
    fn fits(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        self.dropped += usize::from(left.is_none());
        left.is_some()
    }

    fn trim(&mut self, sent: &mut Map<String, Value>, known: &Map<String, Value>) {
        sent.retain(|name, value| match (value, known.get(name)) {
            (Value::Object(sent), Some(Value::Object(known))) => {
                self.trim(sent, known);
                true
            }
            (Value::Array(sent), Some(Value::Array(known))) => {
                for pair in sent.iter_mut().zip(known) {
                    if let (Value::Object(sent), Value::Object(known)) = pair {
                        self.trim(sent, known);
                    }
                }
                true
            }
            (_, Some(_)) => true,
            (value, None) => self.fits(name.len() + bytes(value)),
        });
    }
}

/// Bytes of a value as JSON.
fn bytes(value: &Value) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len())
}

#[cfg(test)]
mod tests;
