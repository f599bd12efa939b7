//! The parts of request handling that `scripts/fuzz` tests: see the package `foretell-fuzz`.

use super::encoding::Coding;
use super::events::headers::attributes;
use super::precondition::Preconditions;
use super::{agenda, request, stream};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use foretell_domain::dead;
use foretell_domain::decision::id::Id;
use foretell_events::codec::media::Media;
use foretell_events::codec::{self, Defaults};
use foretell_events::fuzz::{admitted, message};

const DEFAULTS: Defaults<'_> = Defaults { tenant: "default", time_ms: 1_772_359_200_000 };
/// Largest body, in bytes, after decompression.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Headers as the server passes them on, without those that the server itself rejects.
fn received(bytes: &[u8]) -> (HeaderMap, &[u8]) {
    let (headers, body) = message(bytes);
    let headers = headers.iter().filter_map(|(name, value)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?))
    });
    let mut map = HeaderMap::new();
    for (name, value) in headers.take(100) {
        map.append(name, value);
    }
    (map, body)
}

/// An event in binary mode.
pub fn binary(bytes: &[u8]) {
    let (headers, body) = received(bytes);
    if let Ok(parsed) = codec::decode_binary(&attributes(&headers), body, DEFAULTS) {
        admitted(parsed);
    }
}

/// Headers that determine how a request is read.
pub fn headers(bytes: &[u8]) {
    let (headers, _) = received(bytes);
    let _ = Preconditions::of(&headers);
    let _ = Coding::of(&headers);
    let _ = request::media_type(&headers);
    for value in headers.values().filter_map(|value| value.to_str().ok()) {
        let _ = request::wait(value);
        if let Ok(media) = Media::parse(value) {
            assert_eq!(media.essence(), media.essence().to_ascii_lowercase());
        }
    }
}

/// Texts that only the service creates, but that any caller can send.
pub fn cursors(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(cursor) = agenda::Cursor::decode(text) {
        assert_eq!(agenda::Cursor::decode(&cursor.encode()), Some(cursor), "a cursor is read as it is written");
    }
    if let Ok(cursor) = text.parse::<stream::Cursor>() {
        assert_eq!(cursor.to_string().parse::<stream::Cursor>().ok(), Some(cursor), "so is one of the stream");
    }
    if let Some(id) = Id::parse(text) {
        let _ = id.at_ms();
        assert_eq!(Id::parse(&id.to_string()), Some(id), "so is the id of a decision");
    }
    if let Ok(id) = text.parse::<dead::Id>() {
        assert_eq!(id.to_string().parse::<dead::Id>(), Ok(id), "so is the id of a letter");
    }
}

/// A compressed body.
pub fn content_encoding(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    headers.insert("content-encoding", HeaderValue::from_static("gzip"));
    let Ok(coding) = Coding::of(&headers) else { return };
    if let Ok(body) = coding.undone(Bytes::copy_from_slice(bytes), BODY_BYTES_MAX) {
        assert!(body.len() <= BODY_BYTES_MAX, "{} bytes", body.len());
    }
}
