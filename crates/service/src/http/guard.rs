//! Protection of a service without keys against requests that pages of other sites trigger in a browser.
//!
//! A service without keys listens on loopback and trusts every program that can connect, and any page that is open in a
//! browser on the same machine can make the browser connect. Two attacks are prevented here. With a host name of its
//! own that resolves to 127.0.0.1, a page can treat the service as part of its own site (DNS rebinding): so `Host` must
//! name loopback. And a page may send requests to other sites without reading the answers: so the origin reported by
//! the browser is checked, and a body must have a media type, which a page cannot choose freely without a preflight.
//! Pages of `http.cors_origins` are accepted like the service's own.

use super::Api;
use super::problem::{Problem, ProblemCode};
use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, header};
use std::net::IpAddr;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Rejects requests triggered by pages of other sites, if there are no keys, which such a page would lack.
pub(super) fn check(api: &Api, request: &Request) -> Result<(), Problem> {
    if !api.is_open_to_browsers {
        return Ok(());
    }
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let named = [host, request.uri().authority().map(Authority::as_str)];
    if let Some(foreign) = named.into_iter().flatten().find(|host| !is_loopback(host)) {
        let detail =
            format!("without API keys, only requests to a local name of this machine are accepted, not to {foreign:?}");
        return Err(Problem::new(ProblemCode::HostForbidden, detail));
    }
    if !is_own_origin(headers, host) && !is_named_origin(headers, &api.config.cors_origins) {
        let detail = "without API keys, requests from pages of other origins are rejected: add the origin to \
                      http.cors_origins, use API keys, or send the request without a browser";
        return Err(Problem::new(ProblemCode::OriginForbidden, detail));
    }
    // CloudEvents in binary mode may have no media type, but a browser sends their headers only after a preflight.
    let is_event = || headers.keys().any(|name| name.as_str().starts_with("ce-"));
    if !request.body().is_end_stream() && !headers.contains_key(header::CONTENT_TYPE) && !is_event() {
        return Err(Problem::new(ProblemCode::UnsupportedMediaType, "send a Content-Type with the body"));
    }
    Ok(())
}

/// Whether a `host[:port]` names only this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or(name);
    // Names under localhost never leave the machine (RFC 6761).
    last.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Whether the browser reports a page of this origin, or a person, as the initiator; other programs report nothing.
fn is_own_origin(headers: &HeaderMap, host: Option<&str>) -> bool {
    let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or("null"));
    match (text(SEC_FETCH_SITE), text(header::ORIGIN)) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => origin.split_once("://").is_some_and(|(_, authority)| Some(authority) == host),
        (None, None) => true,
    }
}

/// Whether the browser reports a page of one of these origins as the initiator.
fn is_named_origin(headers: &HeaderMap, origins: &[String]) -> bool {
    let sent = headers.get(header::ORIGIN).map(header::HeaderValue::as_bytes);
    origins.iter().any(|origin| sent == Some(origin.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_are_told_from_others() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.",
            "api.localhost:1",
            "127.0.0.1",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "notlocalhost",
            "127.0.0.1.example.com",
            "192.0.2.1:8080",
            "0.0.0.0:8080",
            "[::]:8080",
            "[2001:db8::1]",
            "::1",
            "127.0.0.1@example.com",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn what_a_browser_says_of_an_origin_is_heeded() {
        for (site, origin, is_own) in [
            (None, None, true),
            (Some("same-origin"), Some("http://127.0.0.1:8080"), true),
            (Some("none"), None, true),
            (Some("cross-site"), None, false),
            (Some("same-site"), Some("http://127.0.0.1:3000"), false),
            (Some(""), None, false),
            (None, Some("http://127.0.0.1:8080"), true),
            (None, Some("http://127.0.0.1:3000"), false),
            (None, Some("https://example.com"), false),
            (None, Some("null"), false),
        ] {
            let mut headers = HeaderMap::new();
            site.map(|site| headers.insert(SEC_FETCH_SITE, site.parse().unwrap()));
            origin.map(|origin| headers.insert(header::ORIGIN, origin.parse().unwrap()));
            assert_eq!(is_own_origin(&headers, Some("127.0.0.1:8080")), is_own, "{site:?} {origin:?}");
        }
    }
}
