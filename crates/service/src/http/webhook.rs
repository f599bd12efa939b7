//! `OPTIONS /v1/events`: the handshake in which a sender of webhooks requests permission to deliver (CloudEvents, HTTP
//! webhooks, 4), as brokers do before the first delivery.
//!
//! Only a caller that could deliver gets the permission, so the handshake needs the same API key as a delivery. Without
//! a key no one can make a broker send here in vain. The permission is granted immediately, in the answer. A callback
//! URL in the request is not called, because the service never fetches an address that a caller names. There is no
//! limit of requests per minute to grant.

use super::auth::Caller;
use super::problem::{Problem, ProblemCode};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{AppendHeaders, IntoResponse};

const REQUEST_ORIGIN: &str = "webhook-request-origin";
const REQUEST_RATE: &str = "webhook-request-rate";
const ALLOWED_ORIGIN: &str = "webhook-allowed-origin";
const ALLOWED_RATE: &str = "webhook-allowed-rate";

/// Returns the allowed methods, and permits deliveries of the origin that requests it.
///
/// The handshake of CloudEvents webhooks: `WebHook-Request-Origin` is returned as `WebHook-Allowed-Origin`, and
/// `WebHook-Allowed-Rate: *` means that no rate is fixed. Needs the API key that deliveries need.
#[utoipa::path(
    options, path = "/v1/events", operation_id = "allowWebhook", tag = "events",
    params(
        ("Foretell-Tenant" = Option<String>, Header),
        ("WebHook-Request-Origin" = Option<String>, Header, description = "Name of the sending system"),
        ("WebHook-Request-Rate" = Option<String>, Header, description = "Requested deliveries per minute"),
    ),
    responses(
        (
            status = 200, description = "The allowed methods, and the requested permission",
            headers(
                ("Allow" = String), ("WebHook-Allowed-Origin" = String, description = "If the request names an origin"),
                ("WebHook-Allowed-Rate" = String, description = "If the request names an origin"),
            )
        ),
    )
)]
pub(super) async fn consent(_caller: Caller, headers: HeaderMap) -> Result<impl IntoResponse, Problem> {
    let mut answered = vec![(header::ALLOW, HeaderValue::from_static("OPTIONS, POST"))];
    if let Some(origin) = consented(&headers)? {
        answered.push((header::HeaderName::from_static(ALLOWED_ORIGIN), origin));
        answered.push((header::HeaderName::from_static(ALLOWED_RATE), HeaderValue::from_static("*")));
    }
    Ok(AppendHeaders(answered))
}

/// The origin that may deliver, if the request names one.
fn consented(headers: &HeaderMap) -> Result<Option<HeaderValue>, Problem> {
    let malformed = |detail| Problem::new(ProblemCode::MalformedRequest, detail);
    let mut rates = headers.get_all(REQUEST_RATE).iter();
    if !rates.all(|rate| is_rate(rate.as_bytes())) {
        return Err(malformed("WebHook-Request-Rate must be a whole number above 0: deliveries per minute"));
    }
    let mut origins = headers.get_all(REQUEST_ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => Ok(None),
        (Some(origin), None) if is_origin(origin.as_bytes()) => Ok(Some(origin.clone())),
        _ => Err(malformed("WebHook-Request-Origin must be the name of one system, such as eventemitter.example.com")),
    }
}

fn is_rate(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_digit) && text.iter().any(|digit| *digit != b'0')
}

/// A DNS name: labels of letters, digits, hyphens and underscores, joined by dots.
fn is_origin(text: &[u8]) -> bool {
    const NAME_BYTES_MAX: usize = 253;
    let is_label =
        |label: &[u8]| !label.is_empty() && label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    text.len() <= NAME_BYTES_MAX && text.split(|b| *b == b'.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_names_and_rates_are_positive() {
        for (origin, is_one) in [
            ("eventgrid.azure.net", true),
            ("localhost", true),
            ("xn--bcher-kva.example", true),
            ("", false),
            ("a..b", false),
            (".example.com", false),
            ("https://example.com", false),
            ("example.com, other.example", false),
            ("*", false),
        ] {
            assert_eq!(is_origin(origin.as_bytes()), is_one, "{origin}");
        }
        for (rate, is_one) in [
            ("1", true),
            ("120", true),
            ("0", false),
            ("00", false),
            ("", false),
            ("-1", false),
            ("1.5", false),
            ("*", false),
        ] {
            assert_eq!(is_rate(rate.as_bytes()), is_one, "{rate}");
        }
    }
}
