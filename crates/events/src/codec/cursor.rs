//! Reads typed fields from a JSON object and collects their faults.
//!
//! A faulty required field results in a placeholder value (an empty text, zero, the unspecified address) and a fault,
//! so that reading continues and the decoders remain plain struct literals. No caller ever sees a placeholder value: an
//! event with faults is not returned. `null` is the same as a missing field, except in [`Fields::change`].

use super::bounds::*;
use super::fault::{self, Fault, quoted};
use super::time;
use super::value::*;
use crate::appointment::{FieldUpdate, Scalar, StartsAt};
use crate::country;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// An object being read.
pub struct Fields<'v, 'f> {
    map: &'v Map<String, Value>,
    /// The pointer of the object itself, as in `/data`.
    place: Cow<'static, str>,
    faults: &'f mut Vec<Fault>,
}

impl<'v, 'f> Fields<'v, 'f> {
    /// The fields of an object at `place`, as in `/data`; faults are added to `faults`.
    pub fn new(map: &'v Map<String, Value>, place: &'static str, faults: &'f mut Vec<Fault>) -> Self {
        Self { map, place: Cow::Borrowed(place), faults }
    }

    /// The value of a field as it was sent.
    fn sent(&self, name: &str) -> Option<&'v Value> {
        #[cfg(feature = "fuzz")]
        super::lookups::note(name);
        self.map.get(name)
    }

    /// The value of a field that is present.
    fn present(&self, name: &str) -> Option<&'v Value> {
        self.sent(name).filter(|value| !value.is_null())
    }

    /// Adds a fault of a field.
    pub fn fault(&mut self, name: &str, code: &'static str, detail: impl Into<String>) {
        self.faults.push(Fault::new(format!("{}/{}", self.place, escaped(name)), code, detail));
    }

    /// A field read by `read`; a missing one is no fault.
    pub fn optional<T>(&mut self, name: &str, read: impl FnOnce(&'v Value) -> ReadResult<T>) -> Option<T> {
        match read(self.present(name)?) {
            Ok(value) => Some(value),
            Err((code, detail)) => {
                self.fault(name, code, detail);
                None
            }
        }
    }

    /// A field read by `read`, or a fault and `placeholder`.
    pub fn required<T>(&mut self, name: &str, placeholder: T, read: impl FnOnce(&'v Value) -> ReadResult<T>) -> T {
        if self.present(name).is_none() {
            self.fault(name, fault::MISSING_FIELD, format!("{name} is required"));
        }
        self.optional(name, read).unwrap_or(placeholder)
    }

    /// A field of an update: a missing one keeps the value, `null` clears it.
    pub fn change<T>(&mut self, name: &str, read: impl FnOnce(&mut Self, &str) -> Option<T>) -> FieldUpdate<T> {
        match self.sent(name) {
            None => FieldUpdate::Keep,
            Some(Value::Null) => FieldUpdate::Clear,
            Some(_) => read(self, name).map_or(FieldUpdate::Keep, FieldUpdate::Set),
        }
    }

    /// A required id: 1 to 512 bytes.
    pub fn id(&mut self, name: &str) -> String {
        self.required(name, String::new(), id)
    }

    /// An optional id: 1 to 512 bytes.
    pub fn optional_id(&mut self, name: &str) -> Option<String> {
        self.optional(name, id)
    }

    /// An optional id in a field that earlier versions did not know: existing records may contain any value there, and
    /// values that are not ids are ignored.
    pub(crate) fn lenient_id(&self, name: &str) -> Option<String> {
        self.present(name).and_then(|value| id(value).ok())
    }

    /// An optional free text; an empty one counts as missing.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.optional(name, |value| text(value, TEXT_BYTES_MAX)).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// An optional text that becomes part of row keys; an empty one counts as missing.
    pub fn label(&mut self, name: &str) -> Option<String> {
        self.optional(name, |value| text(value, LABEL_BYTES_MAX)).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// A required text, not empty.
    pub(crate) fn required_text(&mut self, name: &str) -> String {
        self.required(name, String::new(), |value| not_empty(text(value, TEXT_BYTES_MAX)?).map(str::to_owned))
    }

    /// The user agent, truncated to what is kept; an empty one is kept as empty.
    pub fn user_agent(&mut self, name: &str) -> Option<String> {
        self.optional(name, |value| {
            let whole = text(value, USER_AGENT_BYTES_MAX)?;
            Ok(cut(whole, USER_AGENT_KEPT_BYTES).to_owned())
        })
    }

    /// Two ASCII letters, upper-cased, or a [placeholder](country::PLACEHOLDERS), which counts as missing. Whether the
    /// letters name a country is checked for incoming events: codes change, and records in the log stay readable.
    pub fn country(&mut self, name: &str) -> Option<String> {
        let code = self.optional(name, |value| {
            let sent = text(value, TEXT_BYTES_MAX)?;
            let code = sent.to_ascii_uppercase();
            let is_code = code.len() == 2 && code.bytes().all(|b| b.is_ascii_alphabetic());
            if is_code || country::classify(&code) == country::CountryCode::Placeholder {
                Ok(code)
            } else {
                invalid(format!("{} is not a two-letter country code", quoted(sent)))
            }
        });
        code.filter(|code| country::classify(code) != country::CountryCode::Placeholder)
    }

    /// A required address.
    pub fn ip(&mut self, name: &str) -> IpAddr {
        self.required(name, IpAddr::V4(Ipv4Addr::UNSPECIFIED), address)
    }

    /// An optional address.
    pub(crate) fn optional_ip(&mut self, name: &str) -> Option<IpAddr> {
        self.optional(name, address)
    }

    /// An optional whole number between two bounds, both inclusive; `3.0` is whole.
    pub fn integer(&mut self, name: &str, least: u32, most: u32) -> Option<u32> {
        self.optional(name, |value| {
            let number = number(value)?;
            if number.fract() != 0.0 {
                return Err((fault::WRONG_TYPE, "must be a whole number".to_owned()));
            }
            // In range and whole, so the conversion is exact.
            within(number, f64::from(least), f64::from(most)).map(|number| number as u32)
        })
    }

    /// A required whole number between two bounds, both inclusive.
    pub(crate) fn required_integer(&mut self, name: &str, least: u32, most: u32) -> u32 {
        if self.present(name).is_none() {
            self.fault(name, fault::MISSING_FIELD, format!("{name} is required"));
        }
        self.integer(name, least, most).unwrap_or(least)
    }

    /// A required object that is kept unchanged: its canonical text.
    pub fn document(&mut self, name: &str, bytes_max: usize) -> String {
        self.required(name, String::new(), |value| {
            let text = object(value).map(|_| value.to_string())?;
            if text.len() > bytes_max {
                return Err((fault::TOO_LONG, format!("longer than {bytes_max} bytes")));
            }
            Ok(text)
        })
    }

    /// An optional number between two bounds, both inclusive.
    pub fn number(&mut self, name: &str, least: f64, most: f64) -> Option<f64> {
        self.optional(name, |value| within(number(value)?, least, most))
    }

    /// A required number between two bounds, both inclusive.
    pub(crate) fn required_number(&mut self, name: &str, least: f64, most: f64) -> f64 {
        self.required(name, 0.0, |value| within(number(value)?, least, most))
    }

    /// A required truth value.
    pub fn flag(&mut self, name: &str) -> bool {
        self.required(name, false, |value| value.as_bool().ok_or_else(|| wrong("true or false", value)))
    }

    /// One of several names.
    pub fn choice<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.optional(name, |value| choice(value, parse))
    }

    /// One of several names; required.
    pub fn required_choice<T>(&mut self, name: &str, placeholder: T, parse: impl FnOnce(&str) -> Option<T>) -> T {
        self.required(name, placeholder, |value| choice(value, parse))
    }

    /// An optional IANA zone, in the spelling of the database.
    pub fn zone(&mut self, name: &str) -> Option<String> {
        self.optional(name, time_zone)
    }

    /// A required IANA zone, in the spelling of the database.
    pub(crate) fn required_zone(&mut self, name: &str) -> String {
        self.required(name, String::new(), time_zone)
    }

    /// A language tag, checked only for its form: letters and digits in groups of at most 8, joined by hyphens (BCP
    /// 47).
    pub fn language(&mut self, name: &str) -> Option<String> {
        self.optional(name, |value| {
            let tag = text(value, LANGUAGE_BYTES_MAX)?;
            let fits = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
            if tag.split('-').all(fits) {
                Ok(tag.to_owned())
            } else {
                invalid(format!("{} is not a language tag", quoted(tag)))
            }
        })
    }

    /// A required `HH:MM`, as minutes after midnight.
    pub fn minute_of_day(&mut self, name: &str) -> u16 {
        self.required(name, 0, |value| time::minute_of_day(text(value, TEXT_BYTES_MAX)?))
    }

    /// An optional RFC 3339 instant.
    pub fn instant(&mut self, name: &str) -> Option<i64> {
        self.optional(name, |value| time::instant_ms(text(value, TEXT_BYTES_MAX)?))
    }

    /// A required RFC 3339 instant.
    pub(crate) fn required_instant(&mut self, name: &str) -> i64 {
        self.required(name, 0, |value| time::instant_ms(text(value, TEXT_BYTES_MAX)?))
    }

    /// A required RFC 3339 instant, kept as its original text.
    pub(crate) fn instant_text(&mut self, name: &str) -> String {
        self.required(name, String::new(), |value| {
            let text = text(value, TEXT_BYTES_MAX)?;
            time::instant_ms(text).map(|_| text.to_owned())
        })
    }

    /// A required wall-clock time, kept as its original text.
    pub(crate) fn local_text(&mut self, name: &str) -> String {
        self.required(name, String::new(), |value| {
            let text = text(value, TEXT_BYTES_MAX)?;
            time::local(text).map(|_| text.to_owned())
        })
    }

    /// `starts_at` and `time_zone`: an instant, or a wall-clock time together with its zone.
    pub fn starts_at(&mut self) -> StartsAt {
        let zone_named = self.present("time_zone").is_some();
        let zone = self.zone("time_zone");
        let placeholder = time::Start::Instant(0);
        let start = self.required("starts_at", placeholder, |value| time::start(text(value, TEXT_BYTES_MAX)?));
        match (start, zone) {
            (time::Start::Instant(at_ms), zone) => StartsAt::Instant { at_ms, zone },
            (time::Start::Local(local), Some(zone)) => {
                if let Err((code, detail)) = time::meant(local, &zone) {
                    self.fault("starts_at", code, detail);
                }
                StartsAt::Local { local, zone }
            }
            (time::Start::Local(local), None) => {
                if !zone_named {
                    let detail = "a starts_at without an offset needs a time_zone";
                    self.fault("time_zone", fault::MISSING_FIELD, detail);
                }
                StartsAt::Local { local, zone: String::new() }
            }
        }
    }

    /// A flat map of strings, numbers and booleans; `null` entries count as missing.
    pub fn attributes(&mut self, name: &str) -> Option<BTreeMap<String, Scalar>> {
        let map = self.optional(name, object)?;
        if map.len() > ATTRIBUTES_MAX {
            self.fault(name, fault::TOO_LONG, format!("more than {ATTRIBUTES_MAX} attributes"));
            return None;
        }
        let mut attributes = BTreeMap::new();
        let mut fields = self.within(name, map);
        for key in map.keys() {
            if key.is_empty() {
                fields.fault(key, fault::INVALID_VALUE, "a name must not be empty");
            }
            if key.len() > ATTRIBUTE_NAME_BYTES_MAX {
                let detail = format!("a name is longer than {ATTRIBUTE_NAME_BYTES_MAX} bytes");
                fields.fault(cut(key, ATTRIBUTE_NAME_BYTES_MAX), fault::TOO_LONG, detail);
            } else if let Some(value) = fields.optional(key, scalar) {
                attributes.insert(key.clone(), value);
            }
        }
        Some(attributes)
    }

    /// A list of at most `most` values; `read` gets the fields of the list and the name (the index) of each.
    pub fn list<T>(
        &mut self,
        name: &str,
        most: usize,
        mut read: impl FnMut(&mut Entry<'v, '_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let values = self.optional(name, |value| value.as_array().ok_or_else(|| wrong("a list", value)))?;
        if values.len() > most {
            self.fault(name, fault::TOO_LONG, format!("more than {most} entries"));
            return None;
        }
        let place = format!("{}/{}", self.place, escaped(name));
        let read =
            |(index, value)| read(&mut Entry { value, place: format!("{place}/{index}"), faults: &mut *self.faults });
        Some(values.iter().enumerate().filter_map(read).collect())
    }

    /// Like [`Fields::list`], but required.
    pub(crate) fn required_list<T>(
        &mut self,
        name: &str,
        most: usize,
        read: impl FnMut(&mut Entry<'v, '_>) -> Option<T>,
    ) -> Vec<T> {
        if self.present(name).is_none() {
            self.fault(name, fault::MISSING_FIELD, format!("{name} is required"));
        }
        self.list(name, most, read).unwrap_or_default()
    }

    /// A nested object, read by `read`.
    pub fn nested<T>(&mut self, name: &str, read: impl FnOnce(&mut Fields<'v, '_>) -> T) -> Option<T> {
        let map = self.optional(name, object)?;
        Some(read(&mut self.within(name, map)))
    }

    fn within(&mut self, name: &str, map: &'v Map<String, Value>) -> Fields<'v, '_> {
        let place = format!("{}/{}", self.place, escaped(name));
        Fields { map, place: Cow::Owned(place), faults: &mut *self.faults }
    }
}

/// One entry of a list.
pub struct Entry<'v, 'f> {
    value: &'v Value,
    place: String,
    faults: &'f mut Vec<Fault>,
}

impl<'v> Entry<'v, '_> {
    /// The entry as an object.
    pub fn object<T>(&mut self, read: impl FnOnce(&mut Fields<'v, '_>) -> T) -> Option<T> {
        let map = self.record_fault(object(self.value))?;
        Some(read(&mut Fields { map, place: Cow::Owned(self.place.clone()), faults: &mut *self.faults }))
    }

    /// The entry as one of several names.
    pub fn choice<T>(&mut self, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.record_fault(choice(self.value, parse))
    }

    fn record_fault<T>(&mut self, read: ReadResult<T>) -> Option<T> {
        read.map_err(|(code, detail)| self.faults.push(Fault::new(self.place.clone(), code, detail))).ok()
    }
}

/// A name as a reference token of a JSON pointer.
pub(super) fn escaped(name: &str) -> Cow<'_, str> {
    if name.contains(['~', '/']) { Cow::Owned(name.replace('~', "~0").replace('/', "~1")) } else { Cow::Borrowed(name) }
}
