//! Schemas of events and policies: those of the catalog, as components of the document.
//!
//! A generated client has a class for each type of event, chosen by `type`. Conditions that generators misread (`if`,
//! `not`, alternatives of formats) are left out here: the document requires less than the catalog, whose files and
//! the service's own answers state the rest.

use foretell_engine::ingest::BATCH_EVENTS_MAX;
use foretell_events::catalog::{self, Type};
use serde_json::{Map, Value, json};

/// Keywords that generated code cannot express. Generators turn `uniqueItems` into sets, which lose the order.
const LEFT_OUT: [&str; 10] =
    ["$schema", "$id", "title", "if", "then", "not", "anyOf", "oneOf", "propertyNames", "uniqueItems"];
/// The fields of every stored decision, regardless of the version that made it.
const DECISION_REQUIRED: [&str; 5] = ["id", "kind", "level", "reasons", "evaluated_at"];

/// Adds the schemas to the components of the document.
pub(super) fn add(schemas: &mut Map<String, Value>) {
    let sent: Vec<&Type> = catalog::types().filter(|known| known.topic.takes_producers()).collect();
    for known in &sent {
        schemas.insert(data_name(known.name), plain(known.schema));
        schemas.insert(event_name(known.name), event(known.name));
    }
    let mapping: Map<_, _> =
        sent.iter().map(|known| (known.name.to_owned(), json!(reference(&event_name(known.name))))).collect();
    let events: Vec<_> = sent.iter().map(|known| json!({"$ref": reference(&event_name(known.name))})).collect();
    let any = json!({
        "description": "A CloudEvent, by its `type`.",
        "oneOf": events,
        "discriminator": {"propertyName": "type", "mapping": mapping},
    });
    schemas.insert("Event".to_owned(), any);
    let batch = json!({"type": "array", "maxItems": BATCH_EVENTS_MAX, "items": {"$ref": reference("Event")}});
    schemas.insert("EventBatch".to_owned(), batch);
    schemas.insert("LoginPolicy".to_owned(), plain(catalog::LOGIN_POLICY));
    schemas.insert("RemindersPolicy".to_owned(), plain(catalog::REMINDERS_POLICY));
    let either = [json!({"$ref": reference("LoginPolicy")}), json!({"$ref": reference("RemindersPolicy")})];
    let document =
        json!({"description": "A tenant's changes to the settings, as a JSON merge patch.", "anyOf": either});
    schemas.insert("PolicyDocument".to_owned(), document);
    let mut decision = plain(catalog::DECISION.schema);
    decision["required"] = json!(DECISION_REQUIRED);
    schemas.insert("DecisionRecord".to_owned(), decision);
}

/// The reference to a schema among the components.
pub(super) fn reference(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

/// `foretell.login.succeeded` as `LoginSucceeded`.
fn data_name(type_name: &str) -> String {
    let words = type_name.split(['.', '_']).skip(1);
    words
        .flat_map(|word| word.chars().take(1).map(|first| first.to_ascii_uppercase()).chain(word.chars().skip(1)))
        .collect()
}

fn event_name(type_name: &str) -> String {
    format!("{}Event", data_name(type_name))
}

/// A CloudEvent of one type in structured mode.
fn event(type_name: &str) -> Value {
    json!({
        "type": "object",
        "description": format!("A CloudEvent of type `{type_name}`. Other extension attributes are kept with the event."),
        "required": ["specversion", "id", "source", "type", "data"],
        "properties": {
            "specversion": {"type": "string", "enum": ["1.0"], "description": "CloudEvents version."},
            "id": {
                "type": "string", "minLength": 1, "maxLength": foretell_events::ID_BYTES_MAX,
                "description": "Identifies the event: a second one of this type with this id changes nothing.",
            },
            "source": {
                "type": "string", "format": "uri-reference", "minLength": 1,
                "description": "The system that the event comes from.",
            },
            "type": {"type": "string", "enum": [type_name], "description": "The type of the event."},
            "time": {"type": "string", "format": "date-time", "description": "When it happened; default: now."},
            "subject": {"type": "string", "description": "The user or client, as in `data`."},
            "tenant": {
                "type": "string", "pattern": super::operation::TENANT,
                "description": "The tenant that owns the event; default: the caller's tenant.",
            },
            "datacontenttype": {"type": "string", "description": "`application/json`, or another JSON media type."},
            "data": {"$ref": reference(&data_name(type_name))},
        },
    })
}

/// A schema of the catalog without what [`LEFT_OUT`] names.
fn plain(schema: &str) -> Value {
    // A test verifies that the catalog's schemas are JSON.
    let mut schema = serde_json::from_str(schema).unwrap_or_default();
    strip(&mut schema);
    schema
}

fn strip(schema: &mut Value) {
    let Some(members) = schema.as_object_mut() else { return };
    members.retain(|name, _| !LEFT_OUT.contains(&name.as_str()));
    // Generators make a class for a constant, so a boolean constant becomes a boolean: the type is sufficient.
    if let Some(Value::Bool(_)) = members.get("const") {
        members.remove("const");
        members.insert("type".to_owned(), json!("boolean"));
    }
    widen(members);
    if let Some(Value::Object(properties)) = members.get_mut("properties") {
        properties.values_mut().for_each(strip);
    }
    for nested in ["items", "additionalProperties"] {
        members.get_mut(nested).into_iter().for_each(strip);
    }
}

/// Replaces keywords that generators misread or reject by less exact ones.
fn widen(members: &mut Map<String, Value>) {
    // In OpenAPI 3.0, which most generators were written for, an exclusive bound is a boolean.
    if let Some(bound) = members.remove("exclusiveMinimum") {
        members.entry("minimum").or_insert(bound);
    }
    let types = match members.get("type") {
        Some(Value::Array(types)) => types.iter().filter(|name| *name != "null").cloned().collect(),
        Some(only) => vec![only.clone()],
        None => vec![],
    };
    let format = match types.as_slice() {
        // No class holds a string or a number, so any value is accepted.
        [_, _, ..] => {
            members.remove("type");
            return;
        }
        // Without a format some generators use 32 bits, which is too small for a threshold or the number of a network.
        [number] if number == "number" => "double",
        [integer] if integer == "integer" && !members.get("maximum").is_some_and(is_int32) => "int64",
        _ => return,
    };
    members.entry("format").or_insert(json!(format));
}

fn is_int32(bound: &Value) -> bool {
    bound.as_i64().is_some_and(|bound| i32::try_from(bound).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_callers_send_is_a_component_and_no_reference_leads_nowhere() {
        let mut schemas = Map::new();
        add(&mut schemas);
        assert_eq!(data_name("foretell.reminder.confirmed_by_client"), "ReminderConfirmedByClient");
        for name in ["LoginSucceeded", "LoginSucceededEvent", "AppointmentBooked", "ReminderRequestedEvent"] {
            assert!(schemas.contains_key(name), "{name}");
        }
        assert!(!schemas.contains_key("ReminderDueEvent"), "Foretell alone writes it");
        let mapping = schemas["Event"]["discriminator"]["mapping"].as_object().unwrap();
        assert_eq!(mapping.len(), schemas["Event"]["oneOf"].as_array().unwrap().len());
        for (type_name, target) in mapping {
            let name = target.as_str().unwrap().rsplit('/').next().unwrap();
            assert_eq!(schemas[name]["properties"]["type"]["enum"], json!([type_name]));
            let data = schemas[name]["properties"]["data"]["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
            assert!(schemas[data]["properties"].is_object(), "{data}");
        }
    }

    #[test]
    fn what_is_left_out_is_left_out_at_every_depth_and_properties_of_such_names_stay() {
        let stripped = plain(
            r#"{"title":"t","type":"object","properties":{"title":{"type":"string","anyOf":[{}]}},
                "items":{"not":{},"type":"array","items":{"if":{},"const":true}}}"#,
        );
        let left = json!({"type": "object", "properties": {"title": {"type": "string"}}, "items": {"type": "array", "items": {"type": "boolean"}}});
        assert_eq!(stripped, left);
    }

    #[test]
    fn numbers_keep_their_width_and_shapes_that_generators_refuse_are_widened() {
        for (exact, widened) in [
            (json!({"type": "number"}), json!({"type": "number", "format": "double"})),
            (json!({"type": ["number", "null"]}), json!({"type": ["number", "null"], "format": "double"})),
            (json!({"type": "integer"}), json!({"type": "integer", "format": "int64"})),
            (
                json!({"type": "integer", "maximum": 2_147_483_648_u32}),
                json!({"type": "integer", "maximum": 2_147_483_648_u32, "format": "int64"}),
            ),
            (json!({"type": "integer", "maximum": i32::MAX}), json!({"type": "integer", "maximum": i32::MAX})),
            (
                json!({"type": "number", "exclusiveMinimum": 0}),
                json!({"type": "number", "minimum": 0, "format": "double"}),
            ),
            (json!({"type": ["string", "number", "null"], "maxLength": 9}), json!({"maxLength": 9})),
            (json!({"type": ["string", "null"]}), json!({"type": ["string", "null"]})),
            (json!({"type": "array", "uniqueItems": true}), json!({"type": "array"})),
        ] {
            assert_eq!(plain(&exact.to_string()), widened, "{exact}");
        }
    }

    #[test]
    fn a_network_number_of_four_bytes_fits_in_every_event() {
        let mut schemas = Map::new();
        add(&mut schemas);
        for name in ["LoginSucceeded", "LoginFailed", "LoginConfirmed", "LoginReported"] {
            assert_eq!(schemas[name]["properties"]["asn"]["format"], "int64", "{name}");
        }
    }
}
