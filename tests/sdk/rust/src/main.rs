//! Sends events with the CloudEvents SDK for Rust: binary, structured, structured with bytes, batch.
//!
//! The SDK does not encode header values, so its callers must (HTTP binding, 3.1.3.2), as this program does.
//! Its binding for the crate `http` only writes binary mode; the other modes are written by its JSON format.

use cloudevents::{AttributesReader, Event, EventBuilder, EventBuilderV10};
use http::{HeaderValue, Request};
use serde_json::{Value, json};

type Failed = Box<dyn std::error::Error>;

fn event(of: &Value, data: impl Into<cloudevents::Data>) -> Result<Event, Failed> {
    let text = |name: &str| of[name].as_str().unwrap_or_default();
    Ok(EventBuilderV10::new()
        .id(text("id"))
        .source("https://sdk.example.com/logins")
        .ty("foretell.login.succeeded")
        .time("2025-03-01T10:00:00Z")
        .extension("partner", text("partner"))
        .data("application/json", data)
        .build()?)
}

fn encoded(value: &[u8]) -> Result<HeaderValue, Failed> {
    let must = |b: u8| !(0x21..0x7f).contains(&b) || b == b'"' || b == b'%';
    let text: String =
        value.iter().map(|b| if must(*b) { format!("%{b:02X}") } else { char::from(*b).to_string() }).collect();
    Ok(HeaderValue::from_str(&text)?)
}

fn send(mut request: Request<Vec<u8>>, base: &str, ids: &[&str]) -> Result<(), Failed> {
    *request.uri_mut() = format!("{base}/v1/events").parse()?;
    *request.method_mut() = http::Method::POST;
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let mut answer = ureq::Agent::from(config).run(request)?;
    let (status, body) = (answer.status(), answer.body_mut().read_to_string()?);
    if !status.is_success() {
        return Err(format!("{ids:?}: {status} {body}").into());
    }
    let read: Value = serde_json::from_str(&body)?;
    let found: Vec<_> = read["positions"].as_array().into_iter().flatten().map(|position| &position["id"]).collect();
    if found == ids { Ok(()) } else { Err(format!("sent {ids:?}, was read as {found:?}").into()) }
}

fn binary(event: Event) -> Result<Request<Vec<u8>>, Failed> {
    let request: Request<Option<Vec<u8>>> = event.try_into()?;
    let mut request = request.map(Option::unwrap_or_default);
    for (name, value) in request.headers_mut() {
        if name.as_str().starts_with("ce-") {
            *value = encoded(value.as_bytes())?;
        }
    }
    Ok(request)
}

fn json(media_type: &str, body: Vec<u8>) -> Result<Request<Vec<u8>>, Failed> {
    Ok(Request::builder().header("content-type", media_type).body(body)?)
}

fn main() -> Result<(), Failed> {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, base, file] = arguments.as_slice() else { return Err("usage: BASE FILE".into()) };
    let given: Vec<Value> = serde_json::from_slice(&std::fs::read(file)?)?;
    let data = json!({"user_id": "sdk", "ip": "198.51.100.7"});
    let mut batch = Vec::new();
    for of in &given {
        let whole = event(of, data.clone())?;
        let bytes = event(of, data.to_string().into_bytes())?;
        let ids = [whole.id()];
        send(binary(whole.clone())?, base, &ids)?;
        for structured in [&whole, &bytes] {
            send(json("application/cloudevents+json", serde_json::to_vec(structured)?)?, base, &ids)?;
        }
        batch.push(whole);
    }
    let ids: Vec<_> = batch.iter().map(|event| event.id()).collect();
    send(json("application/cloudevents-batch+json", serde_json::to_vec(&batch)?)?, base, &ids)
}
