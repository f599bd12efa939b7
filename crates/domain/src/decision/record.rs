//! The decision record of a score: the complete answer, and what was scored.
//!
//! A record is a CloudEvent of the type `foretell.decision.made` in binary mode, like all others, but not a fact: no
//! fold reads it. So it is written from the types of the answers, and its readers read only the fields that they need
//! and ignore unknown ones: a decision of an older version has other reasons. The JSON text of an answer is written
//! once, and both sent and stored.

use bytes::Bytes;
use foretell_events::catalog::DECISION;
use foretell_events::codec::{self, Fault, Fields, rfc3339};
use foretell_events::login::{Attempt, Verdict};
use foretell_events::record::{NewRecord, Record};
use foretell_events::{Envelope, Topic, key};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A score that was returned.
#[derive(Debug, Clone, Copy)]
pub struct DecisionRecord<'a> {
    /// The id of the decision.
    pub id: &'a str,
    /// The tenant.
    pub tenant: &'a str,
    /// The user or client.
    pub subject: &'a str,
    /// When it was computed.
    pub at_ms: i64,
    /// What was scored.
    pub input: ScoreInput<'a>,
    /// The answer.
    pub answer: &'a AnswerJson,
}

/// An answer as it is sent and stored: the text of one JSON object with at least one member.
#[derive(Debug, Clone)]
pub struct AnswerJson(Bytes);

impl AnswerJson {
    /// Writes an answer, a struct or map that is not empty.
    pub fn of(answer: &impl Serialize) -> Self {
        // An answer consists of texts and numbers, which always have a JSON form.
        Self(serde_json::to_vec(answer).unwrap_or_default().into())
    }

    /// The text.
    pub fn into_json(self) -> Bytes {
        self.0
    }

    /// The text of an object with the members of the answer, followed by what was scored.
    fn with(&self, input: &ScoreInput<'_>) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.0.len() + INPUT_BYTES);
        text.extend_from_slice(self.0.strip_suffix(b"}").unwrap_or(&self.0));
        let end = text.len();
        if serde_json::to_writer(&mut text, input).is_ok() {
            // The opening brace of what was scored.
            text[end] = b',';
        }
        text
    }
}

/// Bytes that are usually enough for what was scored.
const INPUT_BYTES: usize = 512;

/// What was scored.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreInput<'a> {
    /// An attempt to log in.
    Attempt(ScoredAttempt<'a>),
    /// A visit.
    Visit(ScoredVisit),
}

/// An attempt to log in, and when it happened.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ScoredAttempt<'a> {
    /// Milliseconds since the epoch, written as RFC 3339.
    #[serde(rename = "occurred_at", serialize_with = "instant")]
    pub at_ms: i64,
    /// As it was scored.
    #[serde(flatten)]
    pub attempt: &'a Attempt,
}

/// A visit, reduced to what its score uses.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ScoredVisit {
    /// Days from booking to visit.
    pub lead_days: i32,
    /// When it starts, in milliseconds since the epoch, written as RFC 3339.
    #[serde(rename = "starts_at", serialize_with = "instant")]
    pub starts_at_ms: i64,
}

fn instant<S: serde::Serializer>(at_ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at_ms))
}

impl DecisionRecord<'_> {
    /// Its record, from `source`.
    pub fn record(&self, source: &str) -> NewRecord {
        let Self { id, tenant, subject, at_ms, input, answer } = *self;
        let envelope =
            Envelope { id: id.to_owned(), source: source.to_owned(), tenant: tenant.to_owned(), time_ms: at_ms };
        NewRecord {
            topic: Topic::Decisions,
            key: Some(key::of(tenant, subject).into()),
            value: answer.with(&input).into(),
            headers: codec::binary(&envelope, DECISION.name, subject, &[]),
        }
    }
}

/// The label that the person gives a decision about a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeedbackLabel {
    /// It was the user.
    Legitimate,
    /// It was not the user.
    Fraud,
}

impl FeedbackLabel {
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

/// A decision record that was read back.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDecision(Map<String, Value>);

impl StoredDecision {
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

    /// All of its data.
    pub fn into_data(self) -> Map<String, Value> {
        self.0
    }

    /// The verdict with the label of the person and the fields of the attempt; none for a decision about a visit.
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
