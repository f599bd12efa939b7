//! Compares the catalog's schema and examples of decisions with what reads them.

#![allow(clippy::unwrap_used, reason = "a file of the catalog that cannot be read fails its test")]

#[path = "../../events/tests/catalog/examples.rs"]
mod examples;

use examples::{examples, schema, stored, validator, without};
use foretell_domain::decision::id::Id;
use foretell_domain::decision::record::StoredDecision;
use foretell_domain::decision::report::DecisionTally;
use foretell_events::catalog::DECISION;
use foretell_events::record::NewRecord;
use foretell_events::{Envelope, Topic, codec, key};

#[test]
fn decisions_match_their_schema_and_are_read_back() {
    let validator = validator(&DECISION);
    let mut tally = DecisionTally::new();
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
        let verdict = StoredDecision::read(&record).unwrap().verdict(text("id"), None);
        assert_eq!(verdict.is_some(), data["kind"] == "login", "{path}");
        if let Some(verdict) = verdict {
            let verdict = verdict.unwrap_or_else(|faults| panic!("{path}: {faults:?}"));
            assert_eq!((verdict.user_id.as_str(), verdict.country.as_deref()), ("ada", Some("BR")));
        }
    }
    let report = tally.report();
    assert_eq!((report.total.given, report.visits, report.unreadable), (1, 1, 0));
}
