//! What operations of the document have in common: bounds of parameters, possible problems, and scopes.
//!
//! A handler declares only what is specific to it: answers, parameters, and statuses that others do not have. The
//! problems that every operation with a key or a body can return are added here, by the rules of
//! [`admission`](crate::http::admission).

use crate::http::problem::ProblemCode;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The names of tenants, as a pattern.
pub(super) const TENANT: &str = "^[a-z0-9-]{1,63}$";
/// A recorded answer of an operation: its name, the status, and the body.
type Example = (&'static str, &'static str, &'static str);

macro_rules! examples {
    ($($status:literal: $($operation:literal),+;)+) => {
        &[$($(($operation, $status, include_str!(concat!("examples/", $operation, ".json")))),+),+]
    };
}

/// Recorded answers.
const EXAMPLES: &[Example] = examples! {
    "200":
        "getLiveness", "getReadiness", "getClient", "getAppointment", "getUser", "getDecision", "listAgenda",
        "scoreLogin", "scoreAppointment", "scoreBookedAppointment", "appendEvents",
        "getPolicy", "publishPolicy", "listPolicyVersions", "getNoShowModel";
    "201": "createStreamTicket";
    "202": "requestReminder", "sendFeedback", "trustDevice";
};

/// Completes an operation.
pub(super) fn complete(operation: &mut Map<String, Value>, path: &str) {
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    parameters.into_iter().flatten().for_each(|parameter| bound(parameter, path));
    if let Some(body) = operation.get_mut("requestBody") {
        without_null(body);
    }
    let statuses = statuses(operation);
    secure(operation);
    let name = operation["operationId"].as_str().unwrap_or_default().to_owned();
    let Some(Value::Object(responses)) = operation.get_mut("responses") else { return };
    for status in statuses {
        responses.insert(status.clone(), json!({"$ref": format!("#/components/responses/{}", problem_name(&status))}));
    }
    for (_, status, example) in EXAMPLES.iter().filter(|(operation, ..)| *operation == name) {
        let example: Value = serde_json::from_str(example).unwrap_or_default();
        responses[*status]["content"]["application/json"]["example"] = example;
    }
}

/// The responses for problems, by their names among the components.
pub(super) fn problems() -> Map<String, Value> {
    // No operation has a method that its path does not have.
    let of_operations = |status: &StatusCode| *status != StatusCode::METHOD_NOT_ALLOWED;
    let statuses: BTreeSet<_> = ProblemCode::ALL.iter().map(|code| code.status()).filter(of_operations).collect();
    let named = statuses.into_iter().map(|status| {
        let codes: Vec<_> = ProblemCode::ALL.iter().filter(|code| code.status() == status).collect();
        let names: Vec<_> = codes.iter().map(|code| format!("`{}`", code.name())).collect();
        let example = codes.first().map(|code| example(**code));
        let mut response = json!({
            "description": format!("A problem: {}", names.join(", ")),
            "content": {"application/problem+json": {
                "schema": {"$ref": super::catalogue::reference("Problem")}, "example": example,
            }},
        });
        let header = match status.as_u16() {
            401 => Some(("WWW-Authenticate", json!({"type": "string"}), "How to send a key")),
            429 | 503 => Some(("Retry-After", json!({"type": "integer", "minimum": 1}), "Seconds to wait")),
            _ => None,
        };
        if let Some((name, schema, description)) = header {
            response["headers"] = json!({name: {"schema": schema, "description": description}});
        }
        (problem_name(status.as_str()), response)
    });
    named.collect()
}

/// An example of a problem document.
fn example(code: ProblemCode) -> Value {
    let (name, status, title) = code.parts();
    json!({
        "type": format!("urn:foretell:problem:{}", name.to_lowercase().replace('_', "-")),
        "title": title,
        "status": status.as_u16(),
        "detail": title,
        "code": name,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    })
}

/// The reason phrase of a status in camel case, such as `NotFound`.
fn problem_name(status: &str) -> String {
    let status = status.parse().ok().and_then(|status| StatusCode::from_u16(status).ok());
    status.and_then(|status| status.canonical_reason()).unwrap_or("Other").replace(' ', "")
}

/// The statuses of the problems of an operation: its own, and those of all operations of its kind.
fn statuses(operation: &Map<String, Value>) -> Vec<String> {
    let own = operation["responses"].as_object().into_iter().flatten();
    let own = own.filter(|(status, response)| status.as_str() >= "400" && response.get("content").is_none());
    let mut statuses: BTreeSet<String> = own.map(|(status, _)| status.clone()).collect();
    let mut add = |more: &[u16]| statuses.extend(more.iter().map(u16::to_string));
    if operation.contains_key("security") {
        add(&[400, 401, 403, 429, 500, 503]);
        let parameters = operation.get("parameters").and_then(Value::as_array).into_iter().flatten();
        let is_checked = |parameter: &Value| parameter["in"] != "header" || parameter["name"] == "Idempotency-Key";
        if operation.contains_key("requestBody") || parameters.filter(|parameter| is_checked(parameter)).count() > 0 {
            add(&[422]);
        }
    }
    if operation.contains_key("requestBody") {
        add(&[408, 413, 415]);
    }
    statuses.into_iter().collect()
}

/// OpenAPI has scopes only for OAuth, so those of an API key are in the description, and in `x-required-scopes` for
/// programs.
fn secure(operation: &mut Map<String, Value>) {
    let Some(Value::Array(alternatives)) = operation.remove("security") else {
        operation.insert("security".to_owned(), json!([]));
        return;
    };
    let scopes: Vec<_> = alternatives.iter().filter_map(|one| one["api_key"][0].as_str()).collect();
    let needs =
        format!("Needs the scope {}.", scopes.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(" or "));
    let description = match operation.get("description").and_then(Value::as_str) {
        Some(description) => format!("{description}\n\n{needs}"),
        None => needs,
    };
    let scopes = json!(scopes);
    let parameters = operation.get("parameters").and_then(Value::as_array);
    let takes_ticket = parameters.is_some_and(|all| all.iter().any(|parameter| parameter["name"] == "ticket"));
    // With a ticket, no key is sent.
    let security = if takes_ticket { json!([{"api_key": []}, {}]) } else { json!([{"api_key": []}]) };
    operation.insert("description".to_owned(), description.into());
    operation.insert("security".to_owned(), security);
    operation.insert("x-required-scopes".to_owned(), scopes);
}

/// Adds the bounds and the description of a parameter. None is ever `null`: optional ones are omitted.
fn bound(parameter: &mut Value, path: &str) {
    let (name, place) = (parameter["name"].as_str().unwrap_or_default(), parameter["in"].as_str().unwrap_or_default());
    let bounds = match (name, place) {
        ("Foretell-Tenant", _) => json!({"pattern": TENANT}),
        ("Idempotency-Key", _) => json!({"pattern": "^[!-~]{1,512}$"}),
        ("limit", _) => json!({"minimum": 1, "maximum": 1_000}),
        ("policy", "path") => json!({"enum": ["login", "reminders"]}),
        ("from", "query") if path.ends_with("/stream") => json!({"enum": ["latest"]}),
        ("from" | "to", "query") => json!({"format": "date-time"}),
        (_, "path") => json!({"minLength": 1, "maxLength": foretell_events::ID_BYTES_MAX}),
        _ => json!({}),
    };
    let description = match name {
        "Foretell-Tenant" => "The tenant that owns the data; default: the tenant of the API key, else `default`",
        "Prefer" => "`wait=SECONDS`: answer when the views contain the change, or after this time (RFC 7240)",
        "user_id" => "The account",
        "device_id" => "The device: the caller's own id, or the one in `GET /v1/users/{user_id}`",
        "client_id" => "The client",
        "appointment_id" => "The appointment",
        "id" => "The `id` of the score",
        _ => "",
    };
    if !description.is_empty() && parameter.get("description").is_none() {
        parameter["description"] = description.into();
    }
    let Some(Value::Object(schema)) = parameter.get_mut("schema") else { return };
    if let Some([kind, _]) = schema.get("type").and_then(Value::as_array).map(Vec::as_slice) {
        let kind = kind.clone();
        schema.insert("type".to_owned(), kind);
    }
    if let Value::Object(bounds) = bounds {
        schema.extend(bounds);
    }
}

/// An optional body is omitted: `null` is a body, and no handler accepts it. Other bodies are required.
fn without_null(body: &mut Value) {
    let mut is_required = true;
    for content in body["content"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        let Some(Value::Array(choices)) = content["schema"].get_mut("oneOf") else { continue };
        is_required &= choices.iter().all(|choice| choice["type"] != "null");
        choices.retain(|choice| choice["type"] != "null");
        if let [only] = choices.as_slice() {
            content["schema"] = only.clone();
        }
    }
    body["required"] = is_required.into();
}
