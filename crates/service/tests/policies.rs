//! Compares the catalog's schemas of policies with what reads them.

#![allow(clippy::unwrap_used, reason = "a schema that cannot be read fails its test")]

#[path = "../../events/tests/catalog/damage.rs"]
mod damage;

use damage::{places, replacements, with};
use foretell_domain::remind::policy as reminders;
use foretell_domain::score::login;
use foretell_events::catalog;
use foretell_service::policies::PolicyDocument;
use serde_json::{Value, json};

/// Which documents are policies, for the schema and for the reader.
#[test]
fn schema_and_policies_agree() {
    let rule = json!({"code": "OURS", "when": "true", "factor": 2.0, "mode": "shadow", "description": "x"});
    let complete = json!({"rules": [rule], "first_login": "deny", "on_unavailable": "error", "mode": "faithful"});
    agree(catalog::LOGIN_POLICY, &login::LoginPolicy::default(), &[complete]);
    let steps = json!({"steps": [
        {"id": "a", "before_days": 2, "channels": ["sms", "call"], "template": "t", "levels": ["low", "high"]},
        {"id": "b", "before_business_days": 1, "skip_confirmed": true, "expires_minutes": 90},
        {"id": "c", "at_booking": true},
    ]});
    let one = json!({"steps": [{"id": "a", "before_hours": 24}], "business_days": ["monday"], "fallbacks_max": 0});
    agree(catalog::REMINDERS_POLICY, &reminders::ReminderPolicy::default(), &[steps, one]);
}

fn agree<D: PolicyDocument>(schema: &str, base: &D, documents: &[Value]) {
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
