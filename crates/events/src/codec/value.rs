//! Converts one JSON value to a typed one. The cursor handles its place and whether it is required.

use super::bounds::*;
use super::fault::{self, quoted};
use crate::appointment::Scalar;
use crate::{ID_BYTES_MAX, zone};
use serde_json::{Map, Value};
use std::net::IpAddr;

/// A value that was read; the error contains the code and the detail of a fault.
pub type ReadResult<T> = Result<T, (&'static str, String)>;

pub(super) fn invalid<T>(detail: String) -> ReadResult<T> {
    Err((fault::INVALID_VALUE, detail))
}

/// The fault of a value with a different JSON type than `wanted`.
pub(super) fn wrong(wanted: &str, value: &Value) -> (&'static str, String) {
    let got = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    (fault::WRONG_TYPE, format!("must be {wanted}, not {got}"))
}

pub(super) fn text(value: &Value, bytes_max: usize) -> ReadResult<&str> {
    let text = value.as_str().ok_or_else(|| wrong("a string", value))?;
    if text.len() > bytes_max {
        return Err((fault::TOO_LONG, format!("longer than {bytes_max} bytes")));
    }
    Ok(text)
}

/// The beginning of a text of at most `bytes_max` bytes, cut at a character boundary.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

pub(super) fn not_empty(text: &str) -> ReadResult<&str> {
    if text.is_empty() { invalid("must not be empty".to_owned()) } else { Ok(text) }
}

pub(super) fn id(value: &Value) -> ReadResult<String> {
    not_empty(text(value, ID_BYTES_MAX)?).map(str::to_owned)
}

pub(super) fn address(value: &Value) -> ReadResult<IpAddr> {
    let text = text(value, TEXT_BYTES_MAX)?;
    let address: IpAddr =
        text.parse().map_err(|_| (fault::INVALID_ADDRESS, format!("{} is not an IP address", quoted(text))))?;
    Ok(address.to_canonical())
}

pub(super) fn number(value: &Value) -> ReadResult<f64> {
    value.as_f64().filter(|number| number.is_finite()).ok_or_else(|| wrong("a number", value))
}

pub(super) fn within(number: f64, least: f64, most: f64) -> ReadResult<f64> {
    if (least..=most).contains(&number) { Ok(number) } else { invalid(format!("must be between {least} and {most}")) }
}

pub(super) fn choice<T>(value: &Value, parse: impl FnOnce(&str) -> Option<T>) -> ReadResult<T> {
    let text = text(value, TEXT_BYTES_MAX)?;
    parse(text).ok_or_else(|| (fault::INVALID_VALUE, format!("{} is not one of the allowed names", quoted(text))))
}

pub(super) fn time_zone(value: &Value) -> ReadResult<String> {
    let text = text(value, TEXT_BYTES_MAX)?;
    match zone::canonical(text) {
        Some(name) => Ok(name.to_owned()),
        None => Err((fault::UNKNOWN_TIME_ZONE, format!("{} is not an IANA time zone", quoted(text)))),
    }
}

pub(super) fn object(value: &Value) -> ReadResult<&Map<String, Value>> {
    value.as_object().ok_or_else(|| wrong("an object", value))
}

pub(super) fn scalar(value: &Value) -> ReadResult<Scalar> {
    match value {
        Value::Bool(flag) => Ok(Scalar::Boolean(*flag)),
        Value::Number(_) => number(value).map(Scalar::Number),
        Value::String(_) => text(value, ATTRIBUTE_TEXT_BYTES_MAX).map(|text| Scalar::Text(text.to_owned())),
        _ => Err(wrong("a string, a number or a boolean", value)),
    }
}
