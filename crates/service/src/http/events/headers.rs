//! The attributes of an event in binary mode, from `ce-` headers (HTTP binding of CloudEvents, 3.1.3).
//!
//! A value may be in double quotes, as senders of the first version write it, and is percent-encoded UTF-8. A value
//! that is neither is rejected rather than guessed: two different guesses could turn one id into two, and the id
//! decides whether an event counts. Several SDKs do not encode at all; they get an error at the first `%` or `"`,
//! before an id that happens to look like an escape is decoded to another one.

use axum::http::{HeaderMap, header};
use foretell_events::codec::{INVALID_VALUE, ReadResult};

/// The attributes without their prefix, and `Content-Type` as `datacontenttype`; an error states why a value has no
/// text.
pub(in crate::http) fn attributes(headers: &HeaderMap) -> Vec<(&str, ReadResult<String>)> {
    let pairs = headers.iter().filter_map(|(name, value)| match (name.as_str().strip_prefix("ce-"), name) {
        (Some(name @ "datacontenttype"), _) => Some((name, invalid("belongs in Content-Type, not in ce-"))),
        (Some(name), _) => Some((name, text(value.as_bytes()))),
        (None, name) if name == header::CONTENT_TYPE => Some(("datacontenttype", utf8(value.as_bytes().to_vec()))),
        (None, _) => None,
    });
    pairs.collect()
}

fn invalid<T>(detail: &str) -> ReadResult<T> {
    Err((INVALID_VALUE, detail.to_owned()))
}

fn utf8(bytes: Vec<u8>) -> ReadResult<String> {
    String::from_utf8(bytes).or_else(|_| invalid("is not UTF-8 once it is percent-decoded"))
}

/// The text of a value: first the quotes are removed, then it is percent-decoded once.
fn text(value: &[u8]) -> ReadResult<String> {
    utf8(percent_decoded(&unquoted(value)?)?)
}

/// The content of a quoted string (RFC 9110, 5.6.4), or a value without quotes as it is.
fn unquoted(value: &[u8]) -> ReadResult<Vec<u8>> {
    if !value.contains(&b'"') {
        return Ok(value.to_vec());
    }
    let Some(inner) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return invalid("has a double quote that does not enclose the whole value; write it as %22");
    };
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => match rest.next() {
                Some(escaped) => bytes.push(*escaped),
                None => return invalid("is a quoted string whose last quote is escaped"),
            },
            b'"' => return invalid("has a double quote within its quotes; write it as %22"),
            other => bytes.push(*other),
        }
    }
    Ok(bytes)
}

/// Unlike the URL standard, which leaves a lone `%` as it is, this rejects it.
fn percent_decoded(value: &[u8]) -> ReadResult<Vec<u8>> {
    let is_escape = |after: &[u8]| after.len() >= 2 && after[..2].iter().all(u8::is_ascii_hexdigit);
    if !value.split(|byte| *byte == b'%').skip(1).all(is_escape) {
        return invalid("has a % without two hexadecimal digits; write the sign itself as %25");
    }
    Ok(percent_encoding::percent_decode(value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_unquoted_and_percent_decoded_once() {
        for (sent, read) in [
            ("plain", "plain"),
            ("a b", "a b"),
            ("a%20b", "a b"),
            ("%E2%82%ac%F0%9F%98%80", "€😀"),
            ("%61", "a"),
            ("%2520", "%20"),
            ("€", "€"),
            ("\"a b\"", "a b"),
            ("\"\"", ""),
            ("\"say \\\"hi\\\"\"", "say \"hi\""),
            ("\"back\\\\slash\"", "back\\slash"),
            ("\"\\a\\%41\"", "aA"),
            ("\"%22\"", "\""),
            ("%22a%22", "\"a\""),
            ("back\\slash", "back\\slash"),
            ("", ""),
        ] {
            assert_eq!(text(sent.as_bytes()), Ok(read.to_owned()), "{sent}");
        }
    }

    #[test]
    fn values_that_could_be_read_two_ways_are_refused() {
        for sent in [
            &b"\""[..],
            b"\"open",
            b"closed\"",
            b"mid\"quote",
            b"\"a\"b\"",
            b"\"a\" \"b\"",
            b"\"a\\\"",
            b"100%",
            b"%zz",
            b"%2",
            b"%+1",
            b"%C0%A0",
            b"%ED%A0%80",
            b"%FF",
            b"\xe9",
            b"\"\xff\"",
        ] {
            assert_eq!(text(sent).unwrap_err().0, INVALID_VALUE, "{}", String::from_utf8_lossy(sent));
        }
    }

    proptest! {
        #[test]
        fn every_text_has_one_encoded_form_and_comes_back(wanted in "\\PC{0,40}", quoted: bool) {
            let must = |b: u8| b <= b' ' || b >= 0x7f || b == b'"' || b == b'%';
            let encoded: String = wanted.bytes().map(|b| if must(b) { format!("%{b:02X}") } else { char::from(b).to_string() }).collect();
            let sent = if quoted { format!("\"{}\"", encoded.replace('\\', "\\\\")) } else { encoded };
            prop_assert_eq!(text(sent.as_bytes()), Ok(wanted));
        }

        #[test]
        fn no_value_is_a_panic(value: Vec<u8>) {
            let _ = text(&value);
        }
    }
}
