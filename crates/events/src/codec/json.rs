//! JSON of incoming events: an object may have each member only once.
//!
//! JSON does not define the meaning of `{"user_id": "a", "user_id": "b"}`, so two readers of one text may see two
//! users. Such a text is rejected with the place of each duplicate member. Records in the log were read by the rule
//! that the last one counts, and [`decode`](super::decode) will always read them that way.
//!
//! A byte order mark at the beginning is not part of the text.
//!
//! Names are compared after unescaping: `"a"` and `"\u0061"` are one name.

use super::fault::{DUPLICATE_MEMBER, Fault, Faults, MALFORMED_JSON};
use super::value::cut;
use crate::document;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};
use std::fmt;

/// Most duplicate members that are listed; one is enough to reject the text.
const NAMED_MAX: usize = 16;
/// How much of a member's name a pointer contains, in bytes.
const NAME_SHOWN_BYTES: usize = 128;

/// Reads a JSON text whose root is at `place`, as in `/data`.
///
/// # Errors
/// `MALFORMED_JSON` if it is not JSON or nested beyond 128 levels, `DUPLICATE_MEMBER` for duplicate members.
pub fn parse(bytes: &[u8], place: &str) -> Result<Value, Faults> {
    let mut doubled = Vec::new();
    let malformed = |detail: String| Fault::new(place, MALFORMED_JSON, detail);
    let text = document::text(bytes).map_err(|error| malformed(error.to_string()))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let seed = Unique { at: JsonLocation::Root(place), doubled: &mut doubled };
    let value = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    let value = value.map_err(|error| malformed(error.to_string()))?;
    Faults::none_of(value, doubled)
}

/// The place of a value: a chain to the root, which costs nothing until it is written out.
#[derive(Clone, Copy)]
enum JsonLocation<'p> {
    Root(&'p str),
    Member(&'p JsonLocation<'p>, &'p str),
    Entry(&'p JsonLocation<'p>, usize),
}

impl fmt::Display for JsonLocation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(place) => f.write_str(place),
            Self::Member(parent, name) => write!(f, "{parent}/{}", super::cursor::escaped(cut(name, NAME_SHOWN_BYTES))),
            Self::Entry(parent, index) => write!(f, "{parent}/{index}"),
        }
    }
}

/// Reads one value and all values in it.
struct Unique<'p, 'f> {
    at: JsonLocation<'p>,
    doubled: &'f mut Vec<Fault>,
}

impl<'de> DeserializeSeed<'de> for Unique<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = entries
            .next_element_seed(Unique { at: JsonLocation::Entry(&self.at, list.len()), doubled: &mut *self.doubled })?
        {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let at = JsonLocation::Member(&self.at, &name);
            let value = members.next_value_seed(Unique { at, doubled: &mut *self.doubled })?;
            match object.entry(name) {
                Entry::Vacant(vacant) => drop(vacant.insert(value)),
                Entry::Occupied(mut occupied) => {
                    if self.doubled.len() < NAMED_MAX {
                        let at = JsonLocation::Member(&self.at, occupied.key());
                        let detail = "the object has this member more than once; send it once";
                        self.doubled.push(Fault::new(at.to_string(), DUPLICATE_MEMBER, detail));
                    }
                    occupied.insert(value);
                }
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn doubled(text: &str) -> Vec<String> {
        match parse(text.as_bytes(), "/data") {
            Ok(_) => Vec::new(),
            Err(faults) => faults.iter().map(|fault| format!("{} {}", fault.code, fault.pointer)).collect(),
        }
    }

    #[test]
    fn a_doubled_member_is_named_wherever_it_stands() {
        for (text, places) in [
            (r#"{"a":1,"b":{"a":1},"c":[{"a":1},{"a":1}]}"#, vec![]),
            (r#"{"a":1,"a":1}"#, vec!["DUPLICATE_MEMBER /data/a"]),
            (r#"{"a":1,"\u0061":2}"#, vec!["DUPLICATE_MEMBER /data/a"]),
            (r#"{"a":null,"b":0,"a":null}"#, vec!["DUPLICATE_MEMBER /data/a"]),
            (r#"{"x":[0,{"y":{"":1,"":2}}]}"#, vec!["DUPLICATE_MEMBER /data/x/1/y/"]),
            (r#"{"a/b":1,"a/b":2,"~":1,"~":2}"#, vec!["DUPLICATE_MEMBER /data/a~1b", "DUPLICATE_MEMBER /data/~0"]),
            (r#"{"a":{"k":1,"k":2},"a":3}"#, vec!["DUPLICATE_MEMBER /data/a/k", "DUPLICATE_MEMBER /data/a"]),
            (r#"{"a":1,"A":2,"a ":3,"é":4,"e\u0301":5}"#, vec![]),
            (r#"{"a":1,"a":"#, vec!["MALFORMED_JSON /data"]),
            (r#"{} {}"#, vec!["MALFORMED_JSON /data"]),
        ] {
            assert_eq!(doubled(text), places, "{text}");
        }
    }

    #[test]
    fn many_doubled_members_are_one_short_answer() {
        let name = "n".repeat(10_000);
        let text = format!("[{}]", vec![format!("{{\"{name}\":1,\"{name}\":2}}"); 100].join(","));
        let faults = parse(text.as_bytes(), "").unwrap_err();
        assert_eq!(faults.iter().count(), NAMED_MAX);
        assert!(faults.iter().all(|fault| fault.pointer.len() < 200), "{faults}");
    }

    #[test]
    fn nesting_ends_where_serde_json_ends_it() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(parse(deep(127).as_bytes(), "").is_ok());
        assert_eq!(parse(deep(100_000).as_bytes(), "").unwrap_err().first().code, MALFORMED_JSON);
    }

    proptest! {
        #[test]
        fn a_text_without_doubled_members_is_read_as_serde_json_reads_it(value in crate::codec::tests::any_json()) {
            let text = value.to_string();
            prop_assert_eq!(parse(text.as_bytes(), "").unwrap(), serde_json::from_str::<Value>(&text).unwrap());
        }
    }
}
