//! Errors of the API: RFC 9457 problem documents with stable codes.
//!
//! A client decides by `code` and `status`, a developer reads `detail` and `errors`, an operator finds the log line by
//! `trace_id`. Internal details (addresses, statements, causes) are logged and never sent.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use foretell_events::codec::{Fault, Faults, MALFORMED_JSON};
use foretell_telemetry::trace;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where the paths of the API are listed.
pub(super) const SEE_DOCS: &str = "the path does not exist: see /docs or /openapi.json for all paths";

/// Declares the codes, one row each: the code as it is sent, its status, its title and, if sending the same request
/// again can help, after how many seconds. The name is a `tt` because the schema does not see one that is a `literal`.
macro_rules! codes {
    ($(
        $(#[$means:meta])*
        $code:ident = $name:tt $status:ident $title:literal $(, retry after $seconds:literal s)?;
    )+) => {
        /// What is wrong, for programs. The meaning and the status of a code never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        pub enum ProblemCode {
            $($(#[$means])* #[serde(rename = $name)] $code,)+
        }

        impl ProblemCode {
            /// Every code, for documentation and tests.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$code),+];

            /// The code as it is sent, its status and its title.
            pub const fn parts(self) -> (&'static str, StatusCode, &'static str) {
                match self {
                    $(Self::$code => ($name, StatusCode::$status, $title),)+
                }
            }

            /// Seconds after which the caller may retry, if that can help.
            const fn retry_after_s(self) -> Option<u32> {
                let seconds: &[u32] = match self {
                    $(Self::$code => &[$($seconds)?],)+
                };
                seconds.first().copied()
            }
        }
    };
}

codes! {
    /// 400: the body is not JSON.
    MalformedJson = "MALFORMED_JSON" BAD_REQUEST "The body is not valid JSON";
    /// 400: the body is not TOML.
    MalformedToml = "MALFORMED_TOML" BAD_REQUEST "The body is not valid TOML";
    /// 400: a header, a path or a query cannot be parsed.
    MalformedRequest = "MALFORMED_REQUEST" BAD_REQUEST "The request cannot be parsed";
    /// 400: the query has a parameter that the path does not have; `errors` names it.
    UnknownParameter = "UNKNOWN_PARAMETER" BAD_REQUEST "The path has no such query parameter";
    /// 401: no API key, or an unknown one; or a ticket that is invalid or has expired.
    Unauthenticated = "UNAUTHENTICATED" UNAUTHORIZED "An API key is required";
    /// 403: the API key lacks the scope that the route needs.
    ScopeMissing = "SCOPE_MISSING" FORBIDDEN "The API key lacks a scope";
    /// 403: the header names another tenant than the API key belongs to.
    TenantForbidden = "TENANT_FORBIDDEN" FORBIDDEN "The API key belongs to another tenant";
    /// 403: there are no API keys, and the request is for another host than this machine.
    HostForbidden = "HOST_FORBIDDEN" FORBIDDEN "Requests for this host are not accepted";
    /// 403: there are no API keys, and a page of another origin made a browser send the request.
    OriginForbidden = "ORIGIN_FORBIDDEN" FORBIDDEN "Requests from pages of this origin are not accepted";
    /// 404: there is no such path.
    PathNotFound = "PATH_NOT_FOUND" NOT_FOUND "The path does not exist";
    /// 404: this tenant has no such user.
    UserNotFound = "USER_NOT_FOUND" NOT_FOUND "The user is unknown";
    /// 404: this tenant has no such client.
    ClientNotFound = "CLIENT_NOT_FOUND" NOT_FOUND "The client is unknown";
    /// 404: this tenant has no such appointment, or has forgotten it.
    AppointmentNotFound = "APPOINTMENT_NOT_FOUND" NOT_FOUND "The appointment is unknown";
    /// 404: there is no such policy.
    PolicyNotFound = "POLICY_NOT_FOUND" NOT_FOUND "The policy does not exist";
    /// 404: this tenant has no such decision, or it has expired.
    DecisionNotFound = "DECISION_NOT_FOUND" NOT_FOUND "The decision is unknown";
    /// 405: the path has other methods.
    MethodNotAllowed = "METHOD_NOT_ALLOWED" METHOD_NOT_ALLOWED "The path does not support this method";
    /// 408: the body was not received in time.
    BodyTimeout = "BODY_TIMEOUT" REQUEST_TIMEOUT "The body did not arrive in time";
    /// 409: another request is changing a policy; read it again.
    PolicyConflict = "POLICY_CONFLICT" CONFLICT "Another request is changing it";
    /// 410: the cursor belongs to a log that no longer exists; start again without a cursor.
    CursorExpired = "CURSOR_EXPIRED" GONE "The cursor belongs to a log that no longer exists";
    /// 412: `If-Match` names another version than the current one; read it again.
    PreconditionFailed = "PRECONDITION_FAILED" PRECONDITION_FAILED
        "The current version does not match the precondition";
    /// 413: the body, or a record made of it, is too large.
    BodyTooLarge = "BODY_TOO_LARGE" PAYLOAD_TOO_LARGE "The body is too large";
    /// 413: the batch has too many events.
    TooManyEvents = "TOO_MANY_EVENTS" PAYLOAD_TOO_LARGE "The batch has too many events";
    /// 415: the route does not accept the media type of the body.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE" UNSUPPORTED_MEDIA_TYPE "The media type is not supported";
    /// 415: the body is compressed otherwise than with gzip; `Accept-Encoding` contains what is accepted.
    UnsupportedContentEncoding = "UNSUPPORTED_CONTENT_ENCODING" UNSUPPORTED_MEDIA_TYPE
        "The content encoding is not supported";
    /// 422: the body was parsed and is invalid; `errors` contains the details.
    ValidationFailed = "VALIDATION_FAILED" UNPROCESSABLE_ENTITY "The input is invalid";
    /// 422: the batch has too many events of one user or client.
    TooManyPerSubject = "TOO_MANY_PER_SUBJECT" UNPROCESSABLE_ENTITY "Too many events of one user or client";
    /// 422: the window of the agenda contains more visits than one answer may read; narrow it.
    AgendaTooLarge = "AGENDA_TOO_LARGE" UNPROCESSABLE_ENTITY "The window contains too many visits";
    /// 422: the idempotency key was used with another body.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED" UNPROCESSABLE_ENTITY
        "The idempotency key was used for a different request";
    /// 429: the appointment has the maximum number of requests for a reminder per day.
    TooManyReminders = "TOO_MANY_REMINDERS" TOO_MANY_REQUESTS "Too many reminders for one appointment";
    /// 429: the tenant's own requests use up its share of what the process does concurrently; send fewer at once.
    TenantOverloaded = "TENANT_OVERLOADED" TOO_MANY_REQUESTS
        "The tenant has too many concurrent requests", retry after 1 s;
    /// 500: a fault of the service.
    Internal = "INTERNAL" INTERNAL_SERVER_ERROR "Internal error";
    /// 503: the process waits for log and store; try again.
    Starting = "STARTING" SERVICE_UNAVAILABLE "The service is starting", retry after 1 s;
    /// 503: too many requests are being answered; try again.
    Overloaded = "OVERLOADED" SERVICE_UNAVAILABLE "Too many concurrent requests", retry after 1 s;
    /// 503: too many streams are open; try again later.
    TooManyStreams = "TOO_MANY_STREAMS" SERVICE_UNAVAILABLE "Too many streams are open", retry after 10 s;
    /// 503: the answer took too long; whether anything was appended is not known.
    Timeout = "TIMEOUT" SERVICE_UNAVAILABLE "The answer took too long", retry after 1 s;
    /// 503: the log accepted none of the events, or only some; send the same again.
    LogUnavailable = "LOG_UNAVAILABLE" SERVICE_UNAVAILABLE "The log cannot be written", retry after 1 s;
    /// 503: the views cannot be read, or lag too far to answer.
    ViewsUnavailable = "VIEWS_UNAVAILABLE" SERVICE_UNAVAILABLE "The views cannot be read", retry after 1 s;
    /// 503: the log, where decisions are kept, cannot be read.
    DecisionsUnavailable = "DECISIONS_UNAVAILABLE" SERVICE_UNAVAILABLE "The decisions cannot be read", retry after 1 s;
}

impl ProblemCode {
    /// The code as it is sent.
    pub const fn name(self) -> &'static str {
        self.parts().0
    }

    /// The status that it is sent with.
    pub const fn status(self) -> StatusCode {
        self.parts().1
    }
}

/// One thing that is wrong with the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InputError {
    /// JSON pointer (RFC 6901) into the body, such as `/3/data/ip`, or into the query, such as `/limit`; empty for the
    /// whole.
    #[schema(example = "/3/data/ip")]
    pub pointer: String,
    /// Stable code.
    #[schema(example = "INVALID_ADDRESS")]
    pub code: String,
    /// A description for people.
    pub detail: String,
}

impl From<Fault> for InputError {
    fn from(fault: Fault) -> Self {
        Self { pointer: cut(fault.pointer), code: fault.code.to_owned(), detail: cut(fault.detail) }
    }
}

/// The text, or its beginning if it is long, as it may be if it repeats what was sent.
fn cut(mut text: String) -> String {
    if text.len() > DETAIL_BYTES_MAX {
        text.truncate(text.floor_char_boundary(DETAIL_BYTES_MAX));
        text.push('…');
    }
    text
}

/// An error that will be sent to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    code: ProblemCode,
    detail: String,
    errors: Vec<InputError>,
    /// Faults beyond [`ERRORS_MAX`].
    omitted: usize,
}

/// A problem document (RFC 9457), as `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument {
    /// `urn:foretell:problem:` and the code in kebab case.
    #[serde(rename = "type")]
    #[schema(example = "urn:foretell:problem:validation-failed")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    #[schema(example = 422)]
    pub status: u16,
    /// What is wrong with this request.
    pub detail: String,
    /// What is wrong, for programs.
    pub code: ProblemCode,
    /// What is wrong with the input, at most 100 validation errors; not present for other problems.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<InputError>,
    /// How many more errors there are; not present if there are none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(nullable = false)]
    pub errors_omitted: Option<usize>,
    /// Identifies the request in traces and logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub trace_id: Option<String>,
}

/// Most errors that an answer lists, and longest text of one, so that a small body does not cause a large answer.
pub(crate) const ERRORS_MAX: usize = 100;
const DETAIL_BYTES_MAX: usize = 512;

impl Problem {
    /// A problem with an explanation.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self { code, detail: cut(detail.into()), errors: Vec::new(), omitted: 0 }
    }

    /// A fault of the service: logged completely, sent without its cause.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "cannot answer a request");
        Self::new(ProblemCode::Internal, "the cause is logged with the trace id")
    }

    /// An invalid input; 400 if part of it is not even JSON.
    pub fn invalid(faults: Vec<Fault>) -> Self {
        let malformed = faults.iter().any(|fault| fault.code == MALFORMED_JSON);
        let code = if malformed { ProblemCode::MalformedJson } else { ProblemCode::ValidationFailed };
        let detail = match faults.as_slice() {
            [only] => only.detail.clone(),
            all => format!("{} validation errors", all.len()),
        };
        let omitted = faults.len().saturating_sub(ERRORS_MAX);
        let errors = faults.into_iter().take(ERRORS_MAX).map(InputError::from).collect();
        Self { omitted, errors, ..Self::new(code, detail) }
    }

    /// The same problem at one location of the input.
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        let (code, detail) = (self.code.name().to_owned(), self.detail.clone());
        self.errors.push(InputError { pointer: pointer.into(), code, detail });
        self
    }

    /// The same problem, with these locations; long texts are cut.
    pub fn with(mut self, errors: Vec<InputError>) -> Self {
        self.omitted = errors.len().saturating_sub(ERRORS_MAX);
        let cut_error =
            |error: InputError| InputError { pointer: cut(error.pointer), detail: cut(error.detail), ..error };
        self.errors = errors.into_iter().take(ERRORS_MAX).map(cut_error).collect();
        self
    }

    /// What is wrong, for programs.
    pub fn code(&self) -> ProblemCode {
        self.code
    }

    fn document(self) -> ProblemDocument {
        let (name, status, title) = self.code.parts();
        ProblemDocument {
            kind: format!("urn:foretell:problem:{}", name.to_ascii_lowercase().replace('_', "-")),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail,
            code: self.code,
            errors: self.errors,
            errors_omitted: (self.omitted > 0).then_some(self.omitted),
            trace_id: trace::current_id(),
        }
    }
}

impl From<Faults> for Problem {
    fn from(faults: Faults) -> Self {
        Self::invalid(faults.into_vec())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let code = self.code;
        metrics::counter!(foretell_telemetry::HTTP_PROBLEMS, foretell_telemetry::CODE => code.name()).increment(1);
        let mut response = (code.status(), Json(self.document())).into_response();
        response.extensions_mut().insert(code);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = code.retry_after_s() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if code == ProblemCode::UnsupportedContentEncoding {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if code == ProblemCode::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_sent_as_it_is_named_and_once() {
        let mut names = std::collections::BTreeSet::new();
        for code in ProblemCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
            assert!(code.status().is_client_error() || code.status().is_server_error());
            let is_transient =
                code.status() == StatusCode::SERVICE_UNAVAILABLE || code == ProblemCode::TenantOverloaded;
            assert_eq!(is_transient, code.retry_after_s().is_some(), "{code:?}");
            assert!(names.insert(code.name()));
        }
    }

    #[test]
    fn faults_are_listed_up_to_a_bound_and_the_others_counted() {
        let fault = |n: usize| Fault::new(format!("/{n}"), "X", "é".repeat(1_000));
        for (count, listed, omitted) in [(1, 1, None), (100, 100, None), (101, 100, Some(1)), (5_000, 100, Some(4_900))]
        {
            let document = Problem::invalid((0..count).map(fault).collect()).document();
            assert_eq!((document.errors.len(), document.errors_omitted), (listed, omitted));
            assert!(count == 1 || document.detail == format!("{count} validation errors"));
            assert!(serde_json::to_vec(&document).unwrap().len() <= listed * 600 + 1_000);
        }
        let long = |n: usize| InputError { pointer: "p".repeat(9_000), detail: "é".repeat(9_000), ..fault(n).into() };
        let errors = (0..150).map(long).collect();
        let document = Problem::new(ProblemCode::TooManyPerSubject, "x").with(errors).document();
        assert_eq!((document.errors.len(), document.errors_omitted), (100, Some(50)));
        assert!(document.errors.iter().all(|error| error.pointer.len() + error.detail.len() < 1_100), "they are cut");
    }

    #[test]
    fn a_body_that_is_not_json_is_400_and_an_invalid_one_422() {
        let fault = |code| Fault::new("/data", code, "x");
        assert_eq!(Problem::invalid(vec![fault("MISSING_FIELD")]).code(), ProblemCode::ValidationFailed);
        assert_eq!(
            Problem::invalid(vec![fault("MISSING_FIELD"), fault(MALFORMED_JSON)]).code(),
            ProblemCode::MalformedJson
        );
    }
}
