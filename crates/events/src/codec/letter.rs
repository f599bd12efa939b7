//! Requirements of CloudEvents 1.0 on attributes that a fold does not need. They are checked for incoming events, and
//! never for records in the log: those were accepted without them, and stay what they are.
//!
//! - A name consists of `a-z` and `0-9`, and `data` is not an attribute.
//! - A text has no control characters and no noncharacters; an optional one is not empty.
//! - A value in JSON is a string, a boolean or a whole number of 32 bits.
//! - `datacontenttype` is a media type, of JSON in UTF-8.
//! - In headers an attribute occurs once, and `datacontenttype` is the `Content-Type`.

use super::attributes::CONTEXT;
use super::fault::{self, Fault, quoted};
use super::media::Media;
use super::value::{ReadResult, cut, wrong};
use crate::record::Header;
use serde_json::{Map, Value};

/// Most faults of one kind that are reported for an event: it may have a hundred thousand members or headers.
const NAMED_MAX: usize = 16;
/// The attribute that is the content type of a message in headers.
const CONTENT_TYPE: &str = "datacontenttype";
/// How much of a name a pointer contains, in bytes.
const NAME_SHOWN_BYTES: usize = 128;

/// The faults of the members of an event in structured form, at most [`NAMED_MAX`].
pub(super) fn of_object(event: &Map<String, Value>) -> Vec<Fault> {
    let attributes = event.iter().filter(|(name, _)| *name != "data" && *name != "data_base64");
    let faulty = attributes.filter_map(|(name, value)| member(name, value).err().map(|fault| at(name, fault)));
    faulty.take(NAMED_MAX).collect()
}

/// The faults of a record in structured mode: of its members, and of the content type of the whole.
pub(super) fn of_structured(event: &Map<String, Value>, headers: &[Header]) -> Vec<Fault> {
    let content_type = content_type(headers).err().map(|(code, detail)| Fault::new("", code, detail));
    content_type.into_iter().chain(of_object(event)).collect()
}

/// Whether a record has at most one content type, and that one is a media type of text in UTF-8.
fn content_type(headers: &[Header]) -> ReadResult<()> {
    let mut found = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let Some((_, value)) = found.next() else { return Ok(()) };
    if found.next().is_some() {
        return Err((fault::DUPLICATE_MEMBER, "the record has more than one content-type; send it once".to_owned()));
    }
    checked_text(CONTENT_TYPE, std::str::from_utf8(value).map_err(|_| fault::not_utf8())?)
}

/// The faults of attributes in headers, without their prefix; a text that could not be read already has a fault.
pub(super) fn of_pairs(pairs: &[(&str, ReadResult<String>)]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, (name, text)) in pairs.iter().enumerate() {
        if pairs.iter().take(index).any(|(earlier, _)| earlier == name) {
            let detail = "the request has this attribute more than once; send it once".to_owned();
            faults.push(at(name, (fault::DUPLICATE_MEMBER, detail)));
        }
        let found = checked_name(name)
            .and_then(|()| text.as_deref().map_err(Clone::clone))
            .and_then(|text| checked_text(name, text));
        faults.extend(found.err().map(|fault| at(name, fault)));
    }
    faults
}

/// The faults of attributes in the headers of a record in binary mode, at most [`NAMED_MAX`], and of its content type.
/// The subject is not checked: earlier versions wrote it from the data, where any text is allowed, and no code reads
/// it.
pub(super) fn of_headers(headers: &[Header]) -> Vec<Fault> {
    let attributes = headers.iter().filter_map(|(name, value)| Some((name.strip_prefix("ce_")?, value)));
    let mut names: Vec<_> = attributes.clone().map(|(name, _)| name).collect();
    names.sort_unstable();
    let doubled = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| {
        let detail = "the record has this attribute more than once; send it once".to_owned();
        at(pair[0], (fault::DUPLICATE_MEMBER, detail))
    });
    let faulty = attributes.filter_map(|(name, value)| {
        let text = std::str::from_utf8(value);
        let found = checked_name(name).and_then(|()| match text {
            _ if name == "subject" => Ok(()),
            _ if name == CONTENT_TYPE => Err((fault::INVALID_VALUE, "belongs in content-type, not in ce_".to_owned())),
            Ok(text) => checked_text(name, text),
            Err(_) => Err(fault::not_utf8()),
        });
        found.err().map(|fault| at(name, fault))
    });
    let content_type = content_type(headers).err().map(|fault| at(CONTENT_TYPE, fault));
    content_type.into_iter().chain(doubled.chain(faulty).take(NAMED_MAX)).collect()
}

/// The faults of attributes from sources other than CloudEvents.
pub(super) fn of_texts(texts: [(&str, &String); 2]) -> Vec<Fault> {
    let found = texts.into_iter().filter_map(|(name, text)| Some(at(name, checked_text(name, text).err()?)));
    found.collect()
}

fn at(name: &str, found: (&'static str, String)) -> Fault {
    let (code, detail) = found;
    Fault::new(format!("/{}", super::cursor::escaped(cut(name, NAME_SHOWN_BYTES))), code, detail)
}

fn member(name: &str, value: &Value) -> ReadResult<()> {
    checked_name(name)?;
    match value {
        Value::Null => Ok(()),
        Value::String(text) => checked_text(name, text),
        _ if CONTEXT.contains(&name) || name == "dataschema" => Err(wrong("a string", value)),
        Value::Bool(_) => Ok(()),
        Value::Number(number) if number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) => Ok(()),
        Value::Number(_) => {
            Err((fault::INVALID_VALUE, "must be a 32-bit integer; send other numbers as strings".to_owned()))
        }
        _ => Err(wrong("a string, an integer or a boolean", value)),
    }
}

fn checked_name(name: &str) -> ReadResult<()> {
    if name == "data" {
        return Err((fault::INVALID_NAME, "data is the body, not an attribute".to_owned()));
    }
    if is_name(name) {
        return Ok(());
    }
    let detail = format!("{} is not an attribute name: use a-z and 0-9, or put the value into data", quoted(name));
    Err((fault::INVALID_NAME, detail))
}

/// Whether CloudEvents allows the name.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn checked_text(name: &str, text: &str) -> ReadResult<()> {
    // Nearly all texts are plain ASCII, which is fast to check.
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let forbidden = if is_plain { None } else { text.chars().find(|c| is_forbidden(*c)) };
    if let Some(forbidden) = forbidden {
        let detail = format!("contains U+{:04X}, which attributes must not contain", u32::from(forbidden));
        return Err((fault::INVALID_VALUE, detail));
    }
    match name {
        "subject" | "dataschema" if text.is_empty() => {
            Err((fault::INVALID_VALUE, "must not be empty; omit it".to_owned()))
        }
        CONTENT_TYPE => match Media::parse(text) {
            Ok(_) => Ok(()),
            Err(detail) => Err((fault::UNSUPPORTED_CONTENT_TYPE, detail)),
        },
        _ => Ok(()),
    }
}

/// Whether an event may contain the text as its `subject`. In data, names of users and clients can be any text.
pub(super) fn is_subject(text: &str) -> bool {
    checked_text("subject", text).is_ok()
}

/// Control characters and noncharacters.
fn is_forbidden(c: char) -> bool {
    c.is_control() || matches!(u32::from(c), 0xFDD0..=0xFDEF) || u32::from(c) & 0xFFFE == 0xFFFE
}
