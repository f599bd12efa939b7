//! Compares the catalog's files with the codec: both must accept the same events.
//!
//! Every example is damaged in every field in dozens of ways, and schema and codec must judge each of them alike. Where
//! the codec may be stricter is listed in [`stricter`], with the reason; it is never more lenient.
//!
//! Decisions are compared with what reads them in `foretell-domain`, policies in `foretell-service`.

#![allow(clippy::unwrap_used, reason = "a file of the catalog that cannot be read fails its test")]

mod damage;
mod examples;

use damage::{places, replacements, with};
use examples::{examples, files, root, schema, stored, validator, without};
use foretell_events::Topic;
use foretell_events::catalog::{self, DECISION, Type};
use foretell_events::codec::{self, Defaults, Faults, Parsed};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

const DEFAULTS: Defaults<'_> = Defaults { tenant: "default", time_ms: 1_767_225_600_000 };

/// Every type that is written to a topic: facts, and types that are not folded.
fn all() -> impl Iterator<Item = &'static Type> {
    catalog::types().chain([&DECISION])
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn decode(example: &Value) -> Result<Parsed, Faults> {
    codec::decode_structured(example, DEFAULTS)
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
