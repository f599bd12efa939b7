//! The parts that several answers share.

use super::problem::{Problem, ProblemCode};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use foretell_domain::decision::record::AnswerJson;
use foretell_domain::score::login;
use foretell_domain::view::client;
use foretell_engine::progress;
use foretell_events::codec::rfc3339;
use foretell_ports::Error;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// JSON that is already serialized: the bytes that are sent are those that were recorded.
pub(super) struct WrittenJson(Bytes);

impl From<AnswerJson> for WrittenJson {
    fn from(answer: AnswerJson) -> Self {
        Self(answer.into_json())
    }
}

impl IntoResponse for WrittenJson {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

/// How far the subject's partition is folded; the rows contain at least this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ViewPosition {
    /// The partition.
    pub partition: u32,
    /// The serving checkpoint: all records of the partition below this offset are folded.
    pub offset: i64,
    /// Age of the oldest record not yet folded, in milliseconds; 0 at the end.
    pub lag_ms: u64,
}

impl From<progress::PartitionProgress> for ViewPosition {
    fn from(view: progress::PartitionProgress) -> Self {
        Self { partition: view.partition, offset: view.offset, lag_ms: view.lag_ms }
    }
}

/// A user's login history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoginHistory {
    /// Successful logins.
    pub successes: u64,
    /// Failures in the last 15 minutes.
    pub failures_recent: usize,
    /// Earliest attempt; null if there was none.
    #[schema(format = DateTime, required)]
    pub first_seen: Option<String>,
    /// Latest success; null if there was none.
    #[schema(format = DateTime, required)]
    pub last_success: Option<String>,
}

impl From<login::UserHistory> for LoginHistory {
    fn from(history: login::UserHistory) -> Self {
        Self {
            successes: history.successes,
            failures_recent: history.failures_recent,
            first_seen: history.first_seen_ms.map(at),
            last_success: history.last_success_ms.map(at),
        }
    }
}

/// A client's attendance history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VisitHistory {
    /// Appointments that they came to.
    pub attended: i64,
    /// Appointments that they did not come to.
    pub missed: i64,
    /// Appointments cancelled in time, or by the business.
    pub cancelled: i64,
    /// Appointments cancelled within 24 hours of their start or later, unless by the business.
    pub late_cancelled: i64,
    /// Times that an appointment was moved.
    pub rescheduled: i64,
}

impl From<client::ClientHistory> for VisitHistory {
    fn from(history: client::ClientHistory) -> Self {
        Self {
            attended: history.attended,
            missed: history.missed,
            cancelled: history.cancelled,
            late_cancelled: history.late_cancelled,
            rescheduled: history.rescheduled,
        }
    }
}

/// RFC 3339 in UTC, as every answer writes it.
pub(super) fn at(at_ms: i64) -> String {
    rfc3339(at_ms)
}

/// A new id of an answer or event; such ids sort by their time.
pub(super) fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// The problem that a caller gets if rows cannot be read.
#[allow(clippy::needless_pass_by_value, reason = "is used in map_err")]
pub(super) fn unreadable(error: Error) -> Problem {
    tracing::warn!(%error, "cannot read rows");
    Problem::new(ProblemCode::ViewsUnavailable, "try again")
}

/// The problem that a caller gets for an appointment that does not exist.
pub(super) fn unknown_appointment() -> Problem {
    Problem::new(ProblemCode::AppointmentNotFound, "this tenant has no such appointment")
}
