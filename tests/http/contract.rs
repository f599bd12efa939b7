//! The OpenAPI document as a contract: every answer in these tests is checked against it, and it is strict enough to
//! matter.

use foretell_service::http::openapi;
use jsonschema::Validator;
use regex::Regex;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// The status for a method that a path does not have, and that therefore belongs to no operation.
const METHOD_NOT_ALLOWED: u16 = 405;

/// Operations of a path, and their possible answers.
struct Route {
    path: Regex,
    /// By status: a schema for each operation with a JSON answer; none for an answer without a JSON body.
    answers: BTreeMap<u16, Vec<Option<Validator>>>,
}

/// Panics if the document does not allow an answer. Paths that are not in the document are ignored.
pub(crate) fn hold(path: &str, status: u16, media_type: &str, body: &Value) {
    static ROUTES: OnceLock<Vec<Route>> = OnceLock::new();
    let Some(route) = ROUTES.get_or_init(routes).iter().find(|route| route.path.is_match(path)) else { return };
    if status == METHOD_NOT_ALLOWED {
        return;
    }
    let answers = route.answers.get(&status).unwrap_or_else(|| panic!("{path}: {status} is not documented: {body}"));
    // A HEAD request has no body.
    if !media_type.ends_with("json") || body == "" {
        return;
    }
    let schemas = || answers.iter().flatten();
    let fault = schemas().next().map(|first| first.iter_errors(body).map(|e| e.to_string()).collect::<Vec<_>>());
    assert!(schemas().any(|schema| schema.is_valid(body)), "{path}: {status}: {fault:?} in {body}");
}

fn routes() -> Vec<Route> {
    let document = document();
    let parameter = Regex::new(r"\\\{[^/]+\\\}").unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let mut answers = BTreeMap::<_, Vec<_>>::new();
        for (status, response) in item.as_object().unwrap().values().flat_map(|o| o["responses"].as_object().unwrap()) {
            let content = resolved(&document, response)["content"].as_object();
            let schema = content.and_then(|content| content.values().find_map(|media| media.get("schema")));
            answers.entry(status.parse().unwrap()).or_default().push(schema.map(|schema| closed(&document, schema)));
        }
        let pattern = parameter.replace_all(&regex::escape(path), "[^/]+").into_owned();
        // The concrete path wins over the one with a parameter, as in the router.
        let route = Route { path: Regex::new(&format!("^{pattern}$")).unwrap(), answers };
        if path.contains('{') { routes.push(route) } else { routes.insert(0, route) }
    }
    routes
}

fn document() -> Value {
    serde_json::from_str(&openapi::document().unwrap()).unwrap()
}

fn resolved<'a>(document: &'a Value, part: &'a Value) -> &'a Value {
    match part["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap_or_else(|| panic!("{reference} leads nowhere")),
        None => part,
    }
}

/// A validator of a schema of the document, in which no object may have an unnamed member.
fn closed(document: &Value, schema: &Value) -> Validator {
    fn close(schema: &mut Value) {
        match schema {
            Value::Object(members) => {
                if members.get("properties").is_some_and(Value::is_object)
                    && members.get("type") == Some(&json!("object"))
                {
                    members.entry("additionalProperties").or_insert(json!(false));
                }
                members.values_mut().for_each(close);
            }
            Value::Array(entries) => entries.iter_mut().for_each(close),
            _ => {}
        }
    }
    let mut whole = schema.clone();
    whole["components"] = json!({"schemas": document["components"]["schemas"]});
    close(&mut whole["components"]["schemas"]);
    jsonschema::options().should_validate_formats(true).build(&whole).unwrap()
}

/// Every operation with its path and method.
fn operations(document: &Value) -> Vec<(String, &Map<String, Value>)> {
    let items = document["paths"].as_object().unwrap().iter();
    let operations = items.flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, operation)| (format!("{method} {path}"), operation))
    });
    operations.map(|(place, operation)| (place, operation.as_object().unwrap())).collect()
}

#[test]
fn operations_are_named_by_verb_and_noun_and_described() {
    let document = document();
    let name =
        Regex::new("^(get|list|score|append|allow|request|stream|create|send|publish|trust|revoke)[A-Z][A-Za-z]+$")
            .unwrap();
    let mut names = BTreeSet::new();
    let tags: BTreeSet<_> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    for (place, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(name.is_match(id) && names.insert(id), "{place}: {id}");
        assert!(operation["summary"].is_string() && operation["security"].is_array(), "{place}");
        assert!(
            operation["tags"].as_array().unwrap().iter().all(|tag| tags.contains(tag.as_str().unwrap())),
            "{place}"
        );
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(status.parse::<u16>().is_ok(), "{place}: {status}: statuses are named one by one");
            assert!(resolved(&document, response)["description"].is_string(), "{place}: {status}");
        }
        for parameter in operation.get("parameters").and_then(Value::as_array).into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{place}: {}", parameter["name"]);
            assert!(
                parameter["schema"]["type"].is_string() || parameter["schema"]["$ref"].is_string(),
                "{place}: {parameter}"
            );
        }
    }
}

#[test]
fn only_the_body_of_a_reminder_may_be_left_out() {
    let document = document();
    for (place, operation) in operations(&document) {
        let Some(body) = operation.get("requestBody") else { continue };
        let is_required = operation["operationId"] != "requestReminder";
        assert_eq!(body["required"], json!(is_required), "{place}");
    }
}

#[test]
fn times_have_a_format_and_closed_sets_are_enumerations() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    for (schema, property) in [
        ("LoginAnswer", "evaluated_at"),
        ("LoginHistory", "first_seen"),
        ("LoginRequest", "occurred_at"),
        ("AppointmentView", "starts_at"),
        ("Reminder", "due_at"),
        ("KnownDevice", "known_until"),
        ("PolicyVersion", "published_at"),
        ("AgendaAnswer", "from"),
    ] {
        assert_eq!(schemas[schema]["properties"][property]["format"], "date-time", "{schema}.{property}");
    }
    for (schema, values) in [
        ("AppointmentStatus", json!(["booked", "confirmed", "cancelled", "attended", "missed", "deleted"])),
        ("ReminderStatus", json!(["planned", "sent", "deferred", "suppressed", "withdrawn", "failed"])),
        ("ReminderReceived", json!(["delivered", "failed", "confirmed"])),
        ("Channel", json!(["whatsapp", "sms", "email", "push", "call"])),
        ("LoginDecision", json!(["allow", "challenge", "deny"])),
    ] {
        assert_eq!(schemas[schema]["enum"], values, "{schema}");
    }
    let asn = &schemas["LoginRequest"]["properties"]["asn"];
    assert_eq!((&asn["format"], &asn["maximum"]), (&json!("int64"), &json!(4_294_967_295_u32)));
}

/// A document without requirements would accept everything.
#[test]
fn every_example_is_valid_and_none_of_its_mutations_is() {
    let document = document();
    let mut examples = 0;
    for (place, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let Some(content) = resolved(&document, response)["content"].as_object() else { continue };
            for media in content.values().filter(|media| media.get("example").is_some()) {
                let (schema, example) = (closed(&document, &media["schema"]), &media["example"]);
                let fault = schema.iter_errors(example).next().map(|error| error.to_string());
                assert_eq!(fault, None, "{place} {status}: {example}");
                examples += 1;
                for (how, mutated) in mutations(example, required(&document, &media["schema"])) {
                    assert!(!schema.is_valid(&mutated), "{place} {status}: {how}: {mutated}");
                }
            }
        }
    }
    assert!(examples > 100, "{examples}");
}

/// The members that a schema requires at its root.
fn required<'a>(document: &'a Value, schema: &'a Value) -> BTreeSet<&'a str> {
    let names = resolved(document, schema)["required"].as_array().into_iter().flatten();
    names.filter_map(Value::as_str).collect()
}

/// The example with one error, for each member.
fn mutations(example: &Value, required: BTreeSet<&str>) -> Vec<(String, Value)> {
    let members = example.as_object().unwrap();
    let with = |name: &str, value: Value| {
        let mut mutated = members.clone();
        mutated.insert(name.to_owned(), value);
        Value::Object(mutated)
    };
    let mut mutations = vec![("an unknown member".to_owned(), with("unknown_member", json!(1)))];
    for (name, value) in members {
        // A document within the answer may be anything.
        if ["document", "effective"].contains(&name.as_str()) {
            continue;
        }
        let other = match value {
            Value::String(_) => json!(7),
            // If it may be null, it is a text or an object otherwise.
            Value::Null => json!([]),
            _ => json!("text"),
        };
        mutations.push((format!("{name} of another type"), with(name, other)));
        if required.contains(name.as_str()) {
            let mut without = members.clone();
            without.remove(name);
            mutations.push((format!("without {name}"), Value::Object(without)));
        }
    }
    mutations
}
