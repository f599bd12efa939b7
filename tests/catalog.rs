//! Compares the catalogue's files with the codec: both must accept the same events.
//!
//! Every example is damaged in every field in dozens of ways, and schema and codec must judge each of them alike. Where
//! the codec may be stricter is listed in [`stricter`], with the reason; it is never more lenient.

#![allow(clippy::unwrap_used, reason = "a file of the catalogue that cannot be read fails its test")]

use foretell_domain::decision::id::Id;
use foretell_domain::decision::made::Kept;
use foretell_domain::decision::report::Tally;
use foretell_domain::remind::policy as reminders;
use foretell_domain::score::login;
use foretell_events::catalog::{self, DECISION, Type};
use foretell_events::codec::{self, Defaults, Faults, Parsed};
use foretell_events::record::{NewRecord, Record};
use foretell_events::{Envelope, Position, Topic, key};
use foretell_service::policies::Document;
use jsonschema::Validator;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const DEFAULTS: Defaults<'_> = Defaults { tenant: "default", time_ms: 1_767_225_600_000 };

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("catalog")
}

/// Every type that is written to a topic: facts, and types that are not folded.
fn all() -> impl Iterator<Item = &'static Type> {
    catalog::types().chain([&DECISION])
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn examples(known: &Type) -> Vec<(String, Value)> {
    let folder = root().join("examples").join(known.name);
    let read = |path: PathBuf| (path.display().to_string(), serde_json::from_slice(&std::fs::read(&path).unwrap()));
    files(&folder).into_iter().map(read).map(|(path, value)| (path, value.unwrap())).collect()
}

fn schema(known: &Type) -> Value {
    serde_json::from_str(known.schema).unwrap_or_else(|error| panic!("{}: {error}", known.name))
}

fn validator(known: &Type) -> Validator {
    jsonschema::options().should_validate_formats(true).build(&schema(known)).unwrap()
}

fn decode(example: &Value) -> Result<Parsed, Faults> {
    codec::decode_structured(example, DEFAULTS)
}

fn stored(new: NewRecord, timestamp_ms: i64) -> Record {
    let partition = key::partition(new.key.as_deref().unwrap_or_default(), 8);
    let position = Position { topic: new.topic, partition, offset: 0 };
    Record { position, timestamp_ms, key: new.key, value: new.value, headers: new.headers }
}

#[test]
fn every_type_has_a_schema_and_two_examples_and_there_are_no_others() {
    let names: BTreeSet<_> = all().map(|known| known.name.to_owned()).collect();
    let schemas: BTreeSet<_> = names.iter().map(|name| format!("{name}.schema.json")).collect();
    assert_eq!(files(&root().join("schemas")).iter().map(|path| name(path)).collect::<BTreeSet<_>>(), schemas);
    assert_eq!(files(&root().join("examples")).iter().map(|path| name(path)).collect::<BTreeSet<_>>(), names);
    for known in all() {
        assert!(examples(known).len() >= 2, "{}", known.name);
    }
    for known in catalog::types() {
        assert_eq!(catalog::find(known.name), Some(known));
    }
    assert_eq!(catalog::find("foretell.login"), None);
}

#[test]
fn topics_and_types_agree() {
    let topics: toml::Table = catalog::TOPICS.parse().unwrap();
    let named: BTreeSet<_> = topics.keys().map(String::as_str).collect();
    assert_eq!(named, Topic::ALL.iter().map(|topic| topic.name()).collect());
    for topic in Topic::ALL {
        let table = topics[topic.name()].as_table().unwrap();
        let listed: Vec<_> = table["types"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let known: Vec<_> = all().filter(|known| known.topic == topic).map(|known| known.name).collect();
        assert_eq!(listed, known, "{topic:?}");
        assert!(table["description"].as_str().unwrap().ends_with('.') && !table["key"].as_str().unwrap().is_empty());
    }
}

#[test]
fn schemas_are_valid_and_describe_every_field() {
    for known in all() {
        let schema = schema(known);
        assert!(jsonschema::meta::is_valid(&schema), "{}", known.name);
        assert_eq!(schema["$id"], json!(format!("urn:foretell:schema:{}", known.name)));
        let properties = schema["properties"].as_object().unwrap();
        for (field, property) in properties {
            assert!(!property["description"].as_str().unwrap_or_default().is_empty(), "{} {field}", known.name);
        }
        for field in schema["required"].as_array().unwrap() {
            assert!(properties.contains_key(field.as_str().unwrap()), "{} {field}", known.name);
        }
    }
}

#[test]
fn every_example_is_valid_and_survives_both_modes() {
    for known in catalog::types() {
        let validator = validator(known);
        for (path, example) in examples(known) {
            let problems: Vec<_> = validator.iter_errors(&example["data"]).map(|e| e.to_string()).collect();
            assert!(problems.is_empty(), "{path}: {problems:?}");
            let parsed = decode(&example).unwrap_or_else(|faults| panic!("{path}: {faults}"));
            assert_eq!(parsed.event.fact.type_name(), known.name, "{path}");
            assert_eq!(parsed.event.fact.topic(), known.topic, "{path}");
            let record = stored(codec::encode_parsed(&parsed), parsed.event.envelope.time_ms);
            assert_eq!(codec::decode(&record), Ok(codec::completed(parsed.event.clone())), "{path}");
            assert_eq!(codec::check_record(&parsed.event, &record, 8), Ok(()), "{path}");
            let structured = codec::structured(&record).unwrap();
            assert_eq!(structured["data"], example["data"], "{path}");
            assert_eq!(decode(&structured).unwrap().event, parsed.event, "{path}");
            let written = Value::Object(parsed.event.fact.data());
            assert!(validator.is_valid(&written), "{path}: what is written is valid too: {written}");
        }
    }
}

#[test]
fn country_and_digest_are_of_the_types_whose_schemas_have_them() {
    for known in catalog::types() {
        let has = |field: &str| schema(known)["properties"].get(field).is_some();
        let (path, mut example) = examples(known).into_iter().next().unwrap();
        if has("country") {
            example["data"]["country"] = json!("IE");
        }
        let mut fact = decode(&example).unwrap().event.fact;
        assert_eq!(fact.country().is_some(), has("country"), "{path}");
        fact.set_idempotency_digest("0123");
        let expected = has("idempotency_digest").then_some("0123");
        assert_eq!(fact.idempotency_digest(), expected, "{path}");
        assert_eq!(fact.data().get("idempotency_digest").and_then(Value::as_str), expected, "{path}");
    }
}

/// What the codec rejects and a schema cannot express.
fn stricter(faults: &Faults) -> bool {
    faults.iter().all(|fault| match fault.code {
        // Only the time zone database determines which zones exist.
        codec::UNKNOWN_TIME_ZONE => true,
        // The limit of a document is in bytes of its text.
        codec::TOO_LONG => fault.pointer.ends_with("/document"),
        // A pattern describes the form of a local time, but not the lengths of months.
        codec::INVALID_TIME => ["/starts_at", "/local_start"].iter().any(|field| fault.pointer.ends_with(field)),
        _ => false,
    })
}

/// Values of every JSON type, in and out of every bound.
fn replacements() -> Vec<Value> {
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
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
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

fn without(example: &Value, place: &str) -> Value {
    let mut damaged = example.clone();
    let (parent, name) = place.rsplit_once('/').unwrap();
    match damaged.pointer_mut(parent).unwrap() {
        Value::Object(map) => drop(map.remove(name)),
        Value::Array(list) => drop(list.remove(name.parse::<usize>().unwrap())),
        other => panic!("{other}"),
    }
    damaged
}

#[test]
fn schema_and_codec_judge_damaged_examples_alike() {
    let (mut valid, mut refused, mut stricter_by) = (0, 0, BTreeSet::new());
    let replacements = replacements();
    for known in catalog::types() {
        let validator = validator(known);
        let properties = schema(known)["properties"].as_object().unwrap().clone();
        for (path, example) in examples(known) {
            let mut found = Vec::new();
            places(&example["data"], "/data", &mut found);
            // Fields that are missing in the example are tried as well.
            found.extend(properties.keys().map(|field| format!("/data/{field}")));
            found.push("/data/unknown_field".to_owned());
            for place in found {
                let mut damaged: Vec<_> = replacements.iter().map(|value| with(&example, &place, value)).collect();
                damaged.extend(example.pointer(&place).map(|_| without(&example, &place)));
                for event in damaged {
                    let by_schema = validator.is_valid(&event["data"]);
                    match (by_schema, decode(&event)) {
                        (true, Ok(_)) => valid += 1,
                        (false, Err(_)) => refused += 1,
                        (true, Err(faults)) if stricter(&faults) => {
                            stricter_by.extend(faults.iter().map(|fault| fault.code));
                        }
                        (_, by_codec) => {
                            let by_codec = by_codec.map(|_| "reads it").map_err(|faults| faults.to_string());
                            panic!("{path} {place}: valid {by_schema}, codec {by_codec:?}: {}", event["data"]);
                        }
                    }
                }
            }
        }
    }
    assert!(valid > 1_000 && refused > 10_000, "{valid} {refused}");
    assert_eq!(
        stricter_by,
        BTreeSet::from([codec::INVALID_TIME, codec::TOO_LONG, codec::UNKNOWN_TIME_ZONE]),
        "the list is in use"
    );
}

fn with(example: &Value, place: &str, value: &Value) -> Value {
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

/// Which documents are policies, for the schema and for the reader.
#[test]
fn schema_and_policies_agree() {
    let rule = json!({"code": "OURS", "when": "true", "factor": 2.0, "mode": "shadow", "description": "x"});
    let complete = json!({"rules": [rule], "first_login": "deny", "on_unavailable": "error", "mode": "faithful"});
    agree(catalog::LOGIN_POLICY, &login::Policy::default(), &[complete]);
    let steps = json!({"steps": [
        {"id": "a", "before_days": 2, "channels": ["sms", "call"], "template": "t", "levels": ["low", "high"]},
        {"id": "b", "before_business_days": 1, "skip_confirmed": true, "expires_minutes": 90},
        {"id": "c", "at_booking": true},
    ]});
    let one = json!({"steps": [{"id": "a", "before_hours": 24}], "business_days": ["monday"], "fallbacks_max": 0});
    agree(catalog::REMINDERS_POLICY, &reminders::Policy::default(), &[steps, one]);
}

fn agree<D: Document>(schema: &str, base: &D, documents: &[Value]) {
    let schema: Value = serde_json::from_str(schema).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    let validator = jsonschema::options().build(&schema).unwrap();
    let whole = serde_json::to_value(base).unwrap();
    let first = validator.iter_errors(&whole).next().map(|error| error.to_string());
    assert_eq!(first, None, "the settings are a policy themselves");
    let mut places_of = Vec::new();
    for document in std::iter::once(&whole).chain(documents) {
        assert!(validator.is_valid(document) && D::read(document, base).is_ok(), "{document}");
        let event = json!({"data": document});
        let mut found = Vec::new();
        places(document, "/data", &mut found);
        found.push("/data/unknown".into());
        places_of.extend(found.into_iter().map(|place| (event.clone(), place)));
    }
    let (mut valid, mut refused) = (0, 0);
    let values = replacements().into_iter().chain([json!("shadow"), json!("deny"), json!(0.5), json!(10_001.0)]);
    for value in values {
        for (event, place) in &places_of {
            // A schema cannot check whether an expression is valid.
            if place.ends_with("/when") && value.is_string() {
                continue;
            }
            let document = with(event, place, &value)["data"].clone();
            let by_schema = validator.is_valid(&document);
            match (by_schema, D::read(&document, base)) {
                (true, Ok(_)) => valid += 1,
                (false, Err(_)) => refused += 1,
                // Relations between fields, whole numbers with a point, and what a merge patch removes.
                (true, Err(why)) if why.detail.contains("challenge_at") || why.detail.contains("floating point") => {}
                (false, Ok(_)) if value.is_null() => {}
                (_, by_policy) => {
                    panic!("{place}: valid {by_schema}, read {:?}: {value:.80}", by_policy.err());
                }
            }
        }
    }
    assert!(valid > 100 && refused > 1_000, "{valid} {refused}");
}

#[test]
fn a_slip_of_the_pen_is_answered_with_the_type_that_was_meant() {
    for (sent, meant) in [
        ("foretell.login.success", Some("foretell.login.succeeded")),
        ("foretell.appointment.canceled", Some("foretell.appointment.cancelled")),
        ("foretel.login.failed", Some("foretell.login.failed")),
        ("com.example.object.created", None),
        ("", None),
    ] {
        assert_eq!(catalog::suggest(sent), meant, "{sent}");
    }
    assert_eq!(catalog::suggest(&"foretell.".repeat(1000)), None);
}

#[test]
fn decisions_match_their_schema_and_are_read_back() {
    let validator = validator(&DECISION);
    let mut tally = Tally::new();
    for (path, example) in examples(&DECISION) {
        let data = &example["data"];
        let problems: Vec<_> = validator.iter_errors(data).map(|error| error.to_string()).collect();
        assert!(problems.is_empty(), "{path}: {problems:?}");
        for field in schema(&DECISION)["required"].as_array().unwrap() {
            let damaged = without(&example, &format!("/data/{}", field.as_str().unwrap()));
            assert!(!validator.is_valid(&damaged["data"]), "{path}: {field}");
        }
        for place in ["/data/attempt", "/data/visit", "/data/reasons/0/code"] {
            if example.pointer(place).is_some() {
                assert!(!validator.is_valid(&without(&example, place)["data"]), "{path}: {place}");
            }
        }
        // Fields that answers gained later are missing in decisions of older versions.
        if example.pointer("/data/thresholds").is_some() {
            assert!(validator.is_valid(&without(&example, "/data/thresholds")["data"]), "{path}: thresholds");
            assert!(!validator.is_valid(&without(&example, "/data/thresholds/deny_at")["data"]), "{path}: deny_at");
        }
        let text = |field: &str| example[field].as_str().unwrap();
        let id = Id::parse(text("id")).unwrap_or_else(|| panic!("{path}: no id of a decision"));
        assert_eq!((data["id"].as_str(), codec::rfc3339(id.at_ms()).as_str()), (Some(text("id")), text("time")));
        let envelope = Envelope {
            id: text("id").into(),
            source: text("source").into(),
            tenant: text("tenant").into(),
            time_ms: id.at_ms(),
        };
        let record = stored(
            NewRecord {
                topic: Topic::Decisions,
                key: Some(key::of(text("tenant"), text("subject")).into()),
                value: data.to_string().into(),
                headers: codec::binary(&envelope, DECISION.name, text("subject"), &[]),
            },
            id.at_ms(),
        );
        assert_eq!(codec::structured(&record).unwrap(), example, "{path}");
        tally.count(&record);
        let verdict = Kept::read(&record).unwrap().verdict(text("id"), None);
        assert_eq!(verdict.is_some(), data["kind"] == "login", "{path}");
        if let Some(verdict) = verdict {
            let verdict = verdict.unwrap_or_else(|faults| panic!("{path}: {faults:?}"));
            assert_eq!((verdict.user_id.as_str(), verdict.country.as_deref()), ("ada", Some("BR")));
        }
    }
    let report = tally.report();
    assert_eq!((report.total.given, report.visits, report.unreadable), (1, 1, 0));
}
