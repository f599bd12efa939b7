//! What is kept of a score: the answer as it was given, and beside it what it was given to.
//!
//! A record is a CloudEvent of the type `foretell.decision.made` in binary mode, like any other here, but no fact: no
//! fold reads it. So it is written from the types of the answers and read field by field by those who look for
//! something in it, which tolerate what they do not know: a decision of an older version has other reasons. The JSON
//! text of an answer is written once, and sent and kept.

use bytes::Bytes;
use foretell_events::catalog::DECISION;
use foretell_events::codec::{self, Fault, Fields, rfc3339};
use foretell_events::login::{Attempt, Verdict};
use foretell_events::record::{NewRecord, Record};
use foretell_events::{Envelope, Topic, key};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A score that was given.
#[derive(Debug, Clone, Copy)]
pub struct Made<'a> {
    /// Its name.
    pub id: &'a str,
    /// Whose it is.
    pub tenant: &'a str,
    /// The user or client.
    pub subject: &'a str,
    /// When it was computed.
    pub at_ms: i64,
    /// What was scored.
    pub asked: Asked<'a>,
    /// What was answered.
    pub answer: &'a Answer,
}

/// An answer as it is sent and kept: the text of one JSON object with a member at least.
#[derive(Debug, Clone)]
pub struct Answer(Bytes);

impl Answer {
    /// Writes what is answered, a struct or map that is not empty.
    pub fn of(answer: &impl Serialize) -> Self {
        // An answer is made of texts and numbers, which always have a JSON form.
        Self(serde_json::to_vec(answer).unwrap_or_default().into())
    }

    /// The text.
    pub fn into_json(self) -> Bytes {
        self.0
    }

    /// The text of an object that has the members of the answer, and then what was asked.
    fn with(&self, asked: &Asked<'_>) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.0.len() + ASKED_BYTES);
        text.extend_from_slice(self.0.strip_suffix(b"}").unwrap_or(&self.0));
        let end = text.len();
        if serde_json::to_writer(&mut text, asked).is_ok() {
            // The brace that opens what was asked.
            text[end] = b',';
        }
        text
    }
}

/// Bytes that what was asked mostly takes at most.
const ASKED_BYTES: usize = 512;

/// What was scored.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked<'a> {
    /// An attempt to log in.
    Attempt(Attempted<'a>),
    /// A visit.
    Visit(Visit),
}

/// An attempt to log in, and when it happened.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Attempted<'a> {
    /// Milliseconds since the epoch, written as RFC 3339.
    #[serde(rename = "occurred_at", serialize_with = "instant")]
    pub at_ms: i64,
    /// As it was scored.
    #[serde(flatten)]
    pub attempt: &'a Attempt,
}

/// A visit, as far as its score looks at it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Visit {
    /// Days from booking to visit.
    pub lead_days: i32,
    /// When it starts, in milliseconds since the epoch, written as RFC 3339.
    #[serde(rename = "starts_at", serialize_with = "instant")]
    pub starts_at_ms: i64,
}

fn instant<S: serde::Serializer>(at_ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at_ms))
}

impl Made<'_> {
    /// The record of it, from `source`.
    pub fn record(&self, source: &str) -> NewRecord {
        let Self { id, tenant, subject, at_ms, asked, answer } = *self;
        let envelope =
            Envelope { id: id.to_owned(), source: source.to_owned(), tenant: tenant.to_owned(), time_ms: at_ms };
        NewRecord {
            topic: Topic::Decisions,
            key: Some(key::of(tenant, subject).into()),
            value: answer.with(&asked).into(),
            headers: codec::binary(&envelope, DECISION.name, subject, &[]),
        }
    }
}

/// What the person says of a decision about a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = FeedbackLabel)]
pub enum Label {
    /// It was them.
    Legitimate,
    /// It was not.
    Fraud,
}

impl Label {
    /// The name in requests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Legitimate => "legitimate",
            Self::Fraud => "fraud",
        }
    }

    /// The label of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Legitimate, Self::Fraud].into_iter().find(|label| label.name() == name)
    }
}

/// A decision that was kept, as somebody looks at it.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept(Map<String, Value>);

impl Kept {
    /// The decision of a record; none where it is not one.
    pub fn read(record: &Record) -> Option<Self> {
        if record.header("ce_type") != Some(DECISION.name.as_bytes()) {
            return None;
        }
        serde_json::from_slice(&record.value).ok().map(Self)
    }

    /// Whether it is about a login, and not about a visit.
    pub fn is_login(&self) -> bool {
        self.0.contains_key("attempt")
    }

    /// All of it.
    pub fn into_data(self) -> Map<String, Value> {
        self.0
    }

    /// What the person says of the attempt, with the attempt's own fields; none of a decision about a visit.
    pub fn verdict(&self, id: &str, reported_by: Option<String>) -> Option<Result<Verdict, Vec<Fault>>> {
        let attempt = self.0.get("attempt")?.as_object()?;
        let mut faults = Vec::new();
        let attempt = codec::attempt(&mut Fields::new(attempt, "/attempt", &mut faults));
        let user_id = Fields::new(&self.0, "", &mut faults).id("user_id");
        let verdict = Verdict {
            user_id,
            decision_id: id.to_owned(),
            reported_by,
            ip: Some(attempt.ip),
            device_id: attempt.device_id,
            asn: attempt.asn,
            country: attempt.country,
            user_agent: attempt.user_agent,
            idempotency_digest: None,
        };
        Some(if faults.is_empty() { Ok(verdict) } else { Err(faults) })
    }
}
