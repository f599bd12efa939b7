//! Documents from outside, as bytes: policies, models, settings, API keys, patches.
//!
//! ```text
//!   bytes ─► size ─► encoding (UTF-8, with or without a byte order mark) ─► depth ─► parser ─► value
//! ```
//!
//! Parsers recurse, so a document of a few kilobytes can nest deeply enough to overflow a stack, which ends the whole
//! process. Each check therefore examines only the text and runs before any parser. JSON needs no check of depth here,
//! because its parser stops at 128 levels. TOML's parser limits dotted keys and brackets separately (80 each), not
//! their product.
//!
//! All of it is pure; `foretell_ports::file` reads the files.

pub mod depth;

use crate::codec::{Faults, json};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The optional first bytes of UTF-8 text, which are not part of it.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The language of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// RFC 8259.
    Json,
    /// TOML 1.1.
    Toml,
}

/// Why bytes are not text. The subject of each sentence is "it", so that callers can put a name in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotText {
    /// It begins as UTF-16 does.
    #[error("it is UTF-16; save it as UTF-8")]
    Utf16,
    /// A byte sequence is not UTF-8.
    #[error("it is not UTF-8 at byte {at}; save it as UTF-8")]
    Invalid {
        /// Bytes before it.
        at: usize,
    },
}

/// Why a document cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It has more bytes than allowed.
    #[error("it is longer than {bytes_max} bytes")]
    TooLong {
        /// The limit.
        bytes_max: usize,
    },
    /// It is not text.
    #[error(transparent)]
    NotText(#[from] NotText),
    /// It nests deeper than [`depth::LEVELS_MAX`].
    #[error(transparent)]
    TooDeep(#[from] depth::TooDeep),
    /// It is not JSON, or has a member twice.
    #[error(transparent)]
    Json(#[from] Faults),
    /// It is not TOML, with a place and a reason.
    #[error("{0}")]
    Malformed(String),
}

/// The bytes after a byte order mark, if there is one.
pub fn without_byte_order_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// Whether text begins like UTF-16: with its byte order mark, or with a NUL next to its first character, because every
/// document here begins with an ASCII character.
pub fn is_utf16(bytes: &[u8]) -> bool {
    matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=255, ..] | [1..=255, 0, ..])
}

/// The text of bytes, without a byte order mark.
pub fn text(bytes: &[u8]) -> Result<&str, NotText> {
    if is_utf16(bytes) {
        return Err(NotText::Utf16);
    }
    let behind = without_byte_order_mark(bytes);
    let marked = bytes.len() - behind.len();
    std::str::from_utf8(behind).map_err(|error| NotText::Invalid { at: marked + error.valid_up_to() })
}

/// The value of a document of at most `bytes_max` bytes.
pub fn parse(bytes: &[u8], syntax: Syntax, bytes_max: usize) -> Result<Value, Error> {
    if bytes.len() > bytes_max {
        return Err(Error::TooLong { bytes_max });
    }
    match syntax {
        Syntax::Json => Ok(json::parse(bytes, "")?),
        Syntax::Toml => from_toml(text(bytes)?),
    }
}

/// The value of a TOML text that nests no deeper than [`depth::LEVELS_MAX`].
pub fn from_toml<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    depth::check(text)?;
    toml::from_str(text).map_err(|error| Error::Malformed(in_one_line(text, &error)))
}

/// Place and reason, without the parser's multi-line excerpt.
fn in_one_line(text: &str, error: &toml::de::Error) -> String {
    let reason = error.message().trim().replace('\n', ", ");
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return reason };
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("line {line}, column {column}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn utf16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(order).collect()
    }

    #[test]
    fn text_is_utf8_with_or_without_a_byte_order_mark() {
        for (bytes, read) in [
            (&b"a = 1"[..], Ok("a = 1")),
            (b"\xef\xbb\xbfa = 1", Ok("a = 1")),
            (b"\xef\xbb\xbf", Ok("")),
            (b"", Ok("")),
            (b"a\0", Err(NotText::Utf16)),
            (b"\xef\xbb\xbfa\xff", Err(NotText::Invalid { at: 4 })),
            (b"ab\xc3", Err(NotText::Invalid { at: 2 })),
        ] {
            assert_eq!(text(bytes), read, "{bytes:?}");
        }
        for marked in ["{}", "\u{feff}{}"] {
            assert_eq!(text(&utf16(marked, u16::to_le_bytes)), Err(NotText::Utf16));
            assert_eq!(text(&utf16(marked, u16::to_be_bytes)), Err(NotText::Utf16));
        }
    }

    #[test]
    fn windows_files_say_what_others_say() {
        for (text, syntax) in [
            ("\u{feff}a = 1\r\n[b]\r\nc = 2\r\n", Syntax::Toml),
            ("\u{feff}a = 1\r\n[b]\r\nc = 2", Syntax::Toml),
            ("\u{feff}{\"a\": 1,\r\n\"b\": {\"c\": 2}}\r\n", Syntax::Json),
            ("{\"a\": 1, \"b\": {\"c\": 2}}", Syntax::Json),
        ] {
            assert_eq!(parse(text.as_bytes(), syntax, 1_024), Ok(json!({"a": 1, "b": {"c": 2}})), "{text:?}");
        }
        assert_eq!(parse(b"", Syntax::Toml, 0), Ok(json!({})), "an empty file says nothing");
    }

    #[test]
    fn refusals_come_before_the_parser_and_say_what_to_do() {
        let deep_json = "[".repeat(200) + &"]".repeat(200);
        for (bytes, syntax, words) in [
            (&b"a = 1 # long"[..], Syntax::Toml, "longer than 8 bytes"),
            (b"\xff\xfea\0", Syntax::Toml, "UTF-16"),
            (b"a = \xff", Syntax::Toml, "not UTF-8 at byte 4"),
            (b"a =", Syntax::Toml, "line 1"),
            (b"{", Syntax::Json, "line 1 column 1"),
        ] {
            let error = parse(bytes, syntax, 8).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert!(parse(deep_json.as_bytes(), Syntax::Json, 1_024).is_err(), "by the parser's own bound");
    }
}
