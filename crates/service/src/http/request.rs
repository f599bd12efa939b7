//! Extractors of handlers, with every failure as a problem document.

use super::Api;
use super::encoding::Coding;
use super::problem::{Problem, ProblemCode};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use foretell_events::ID_BYTES_MAX;
use foretell_events::codec::media::Media;
use foretell_events::codec::{self, Fault, Fields, TOO_LONG, WRONG_TYPE};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// Longest body that is parsed on a worker. Longer events are parsed on another thread, and a longer object is answered
/// 413, because no valid one is that long.
pub(super) const SHORT_BYTES_MAX: usize = 128 * 1024;
/// Longest compressed events that are decompressed and parsed on a worker, in bytes after decompression.
const UNPACKED_BYTES_MAX: usize = 16 * 1024;

/// A body within the limit as it was sent, possibly compressed.
pub(super) struct Packed {
    bytes: Bytes,
    coding: Coding,
}

impl FromRequest<Arc<Api>> for Packed {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        let coding = Coding::of(request.headers())?;
        let bytes = Bytes::from_request(request, api).await.map_err(|rejection| unread(&rejection, api))?;
        Ok(Self { bytes, coding })
    }
}

impl Packed {
    /// The decompressed body.
    pub(super) fn unpacked(self, bytes_max: usize) -> Result<Bytes, Problem> {
        if self.bytes.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        self.coding.undone(self.bytes, bytes_max)
    }

    /// The decompressed body, if a worker may parse it; else the body as it was sent.
    ///
    /// # Errors [`ProblemCode::MalformedRequest`] for a short body that is declared as gzip but is not.
    pub(super) fn unpacked_if_short(self) -> Result<Result<Bytes, Self>, Problem> {
        let (bytes, coding) = (self.bytes.clone(), self.coding);
        let bytes_max = if coding == Coding::Identity { SHORT_BYTES_MAX } else { UNPACKED_BYTES_MAX };
        match self.unpacked(bytes_max) {
            Err(problem) if problem.code() == ProblemCode::BodyTooLarge => Ok(Err(Self { bytes, coding })),
            unpacked => unpacked.map(Ok),
        }
    }
}

/// A body within the limit, of any type, decompressed.
pub(super) struct Body(pub(super) Bytes);

impl FromRequest<Arc<Api>> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        Packed::from_request(request, api).await?.unpacked(api.config.body_bytes_max).map(Self)
    }
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(ProblemCode::BodyTooLarge, format!("the body is larger than {bytes_max} bytes"))
}

fn unread(rejection: &BytesRejection, api: &Api) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(api.config.body_bytes_max),
        _ => Problem::new(ProblemCode::MalformedRequest, "the body ended before its announced length"),
    }
}

/// A body that is one JSON object of at most [`SHORT_BYTES_MAX`]; without a body, an empty object.
pub(super) struct Object(pub(super) Map<String, Value>);

impl FromRequest<Arc<Api>> for Object {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        if media_type(request.headers())?.is_some_and(|media| !media.is_json()) {
            return Err(Problem::new(ProblemCode::UnsupportedMediaType, "send application/json"));
        }
        let packed = Packed::from_request(request, api).await?;
        let bytes = packed.unpacked(SHORT_BYTES_MAX.min(api.config.body_bytes_max))?;
        if bytes.is_empty() {
            return Ok(Self(Map::new()));
        }
        match json(&bytes)? {
            Value::Object(object) => Ok(Self(object)),
            _ => Err(Problem::invalid(vec![Fault::new("", WRONG_TYPE, "must be an object")])),
        }
    }
}

impl Object {
    /// Reads the fields; every fault is reported.
    pub(super) fn read<T>(&self, read: impl FnOnce(&mut Fields<'_, '_>) -> T) -> Result<T, Problem> {
        let mut faults = Vec::new();
        let value = read(&mut Fields::new(&self.0, "", &mut faults));
        if faults.is_empty() { Ok(value) } else { Err(Problem::invalid(faults)) }
    }
}

/// A JSON value from a body, without duplicate members.
pub(super) fn json(bytes: &[u8]) -> Result<Value, Problem> {
    Ok(codec::json::parse(bytes, "")?)
}

/// The media type of the body, if it is stated.
pub(super) fn media_type(headers: &HeaderMap) -> Result<Option<Media>, Problem> {
    let refused = |detail: String| Problem::new(ProblemCode::UnsupportedMediaType, detail);
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(refused("the request has Content-Type more than once; send it once".to_owned())),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| refused("Content-Type is not text".to_owned()))?;
            Media::parse(text).map(Some).map_err(refused)
        }
    }
}

/// The ids in a path: one text, or two.
pub(super) struct Ids<T>(pub(super) T);

impl<T: DeserializeOwned + Texts + Send> FromRequestParts<Arc<Api>> for Ids<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, api).await;
        let Path(ids) = path.map_err(|_| Problem::new(ProblemCode::MalformedRequest, "the path is not UTF-8"))?;
        if ids.texts().iter().any(|id| id.len() > ID_BYTES_MAX) {
            let detail = format!("an id in the path is longer than {ID_BYTES_MAX} bytes");
            return Err(Problem::invalid(vec![Fault::new("", TOO_LONG, detail)]));
        }
        Ok(Self(ids))
    }
}

/// The types of ids that a path can contain.
pub(super) trait Texts {
    /// Every id.
    fn texts(&self) -> Vec<&str>;
}

impl Texts for String {
    fn texts(&self) -> Vec<&str> {
        vec![self]
    }
}

impl Texts for (String, String) {
    fn texts(&self) -> Vec<&str> {
        vec![&self.0, &self.1]
    }
}

/// How long the caller waits for the fold: `Prefer: wait=SECONDS` (RFC 7240), at most the configured bound.
pub(super) struct Prefer(pub(super) Option<Duration>);

impl FromRequestParts<Arc<Api>> for Prefer {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Self::Rejection> {
        let longest = Duration::from_millis(api.config.wait_ms_max);
        // A preference that cannot be parsed is ignored, as RFC 7240 requires.
        let texts = parts.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        Ok(Self(texts.flat_map(|text| text.split([',', ';'])).find_map(wait).map(|wait| wait.min(longest))))
    }
}

pub(super) fn wait(preference: &str) -> Option<Duration> {
    let (name, value) = preference.split_once('=')?;
    let seconds: u32 = value.trim().trim_matches('"').parse().ok()?;
    name.trim().eq_ignore_ascii_case("wait").then(|| Duration::from_secs(seconds.into()))
}

/// Asserts that a schema documents exactly the fields that a reader reads, and as required those that it requires and
/// that are not `alternatives`, which are required unless another field is present.
#[cfg(test)]
pub(super) fn documents<S: utoipa::PartialSchema, T>(
    alternatives: &[&str],
    read: impl FnOnce(&mut Fields<'_, '_>) -> T,
) {
    let schema = serde_json::to_value(S::schema()).unwrap();
    let documented: std::collections::BTreeSet<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    let required = schema["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap());
    let required: std::collections::BTreeSet<_> =
        required.chain(alternatives.iter().copied()).map(str::to_owned).collect();
    assert_eq!(codec::lookups(read), (documented, required));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Documents two fields, of which one is required.
    #[derive(utoipa::ToSchema)]
    #[allow(dead_code, reason = "documentation")]
    struct Example {
        first: String,
        #[schema(nullable = false)]
        second: Option<String>,
    }

    #[test]
    fn a_schema_that_differs_from_its_reader_is_detected() {
        documents::<Example, _>(&[], |f| (f.id("first"), f.text("second")));
        let differs =
            |read: fn(&mut Fields<'_, '_>)| std::panic::catch_unwind(|| documents::<Example, _>(&[], read)).is_err();
        assert!(differs(|f| drop(f.id("first"))), "a documented field is not read");
        assert!(differs(|f| drop((f.id("first"), f.text("second"), f.text("third")))), "a field is not documented");
        assert!(differs(|f| drop((f.optional_id("first"), f.text("second")))), "a required field is optional");
        assert!(differs(|f| drop((f.id("first"), f.id("second")))), "an optional field is required");
    }

    #[test]
    fn waits_are_read_and_other_preferences_ignored() {
        for (text, seconds) in [
            ("wait=5", Some(5)),
            (" Wait = \"7\" ", Some(7)),
            ("wait", None),
            ("wait=-1", None),
            ("wait=1.5", None),
            ("handling=strict", None),
        ] {
            assert_eq!(wait(text).map(|wait| wait.as_secs()), seconds, "{text}");
        }
    }
}
