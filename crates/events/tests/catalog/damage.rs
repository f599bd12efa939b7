//! Changes of a document: every place in it, and values to put there.

use serde_json::{Value, json};

/// Values of every JSON type, in and out of every bound.
pub(crate) fn replacements() -> Vec<Value> {
    let mut values = vec![json!(null), json!(true), json!([]), json!({}), json!([{}]), json!([1]), json!({"x": {}})];
    values.extend([0.0, -1.0, 1.5, 7.0, 90.5, 181.0, 1e300].map(Value::from));
    values.extend([0, 1, -1, 44_640, 44_641, 86_400_001, 4_294_967_295_i64, 4_294_967_296].map(Value::from));
    values.extend([1, 64, 65, 256, 257, 512, 513, 1024, 1025, 65_536, 65_537].map(|n| json!("x".repeat(n))));
    values.extend(TEXTS.map(Value::from));
    values.extend([16, 17, 64, 65].map(|n| json!(vec!["sms"; n])));
    values.extend([64, 65].map(|n| (0..n).map(|key| (format!("k{key}"), json!(key))).collect()));
    values.push(json!({"n".repeat(128): 1}));
    values.push(json!({"n".repeat(129): 1}));
    values.push(json!({"": 1}));
    values.push(json!({"from": "08:00", "to": "08:00"}));
    values.push(json!({"score": 0.5, "level": ""}));
    values.push(json!([{"channel": "sms", "consent": false, "address_ref": null}, null]));
    values
}

const TEXTS: [&str; 42] = [
    "",
    "sms",
    "fax",
    "client",
    "Client",
    "IE",
    "ie",
    "IRL",
    "Ⅳx",
    "en-IE",
    "en_IE",
    "de-abcdefghi",
    "UTC",
    "Europe/Atlantis",
    "00:00",
    "23:59",
    "24:00",
    "7:00",
    "192.0.2.1",
    "192.0.2.01",
    "192.0.2",
    "192.0.2.1/24",
    "::1",
    "::ffff:192.0.2.1",
    "2001:db8::g",
    "fe80::1%eth0",
    "[::1]",
    "2026-05-01T09:00:00Z",
    "2026-05-01t09:00:00z",
    "2026-05-01T09:00:00.123456789+05:45",
    "2026-05-01T09:00:00",
    "2026-05-01T09:00:00.5",
    "2026-05-01T09:00",
    "2026-05-01 09:00:00Z",
    "2026-05-01T09:00:00+0100",
    "2026-02-30T09:00:00Z",
    "2026-02-30T09:00:00",
    "2026-05-01T24:00:00Z",
    "1969-12-31T23:00:00Z",
    "2100-12-31T23:59:59",
    "2101-01-01T00:00:00Z",
    "20260501T090000Z",
];

/// The JSON pointers of all values inside of `value`, from the outside in.
pub(crate) fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let mut visit = |name: &str, inner: &Value| {
        let place = format!("{at}/{name}");
        found.push(place.clone());
        places(inner, &place, found);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(name, inner)| visit(name, inner)),
        Value::Array(list) => list.iter().enumerate().for_each(|(index, inner)| visit(&index.to_string(), inner)),
        _ => {}
    }
}

/// The example with this value at a JSON pointer.
pub(crate) fn with(example: &Value, place: &str, value: &Value) -> Value {
    let mut damaged = example.clone();
    match damaged.pointer_mut(place) {
        Some(slot) => *slot = value.clone(),
        None => {
            let field = place.strip_prefix("/data/").unwrap();
            damaged["data"].as_object_mut().unwrap().insert(field.to_owned(), value.clone());
        }
    }
    damaged
}
