//! Pages of other origins (CORS): which of them a browser lets send requests and read answers.
//!
//! A browser gives an answer to a page of another origin only if the answer allows it. The origins of
//! `http.cors_origins` are allowed; without any, answers contain no CORS headers. Keys are sent in `Authorization`,
//! which a page sets itself, so credentials that browsers add themselves, such as cookies, are never allowed.
//!
//! This is the outermost layer of a listener. A page can therefore read every rejection: because of a missing key or
//! slot, or of a process that is starting. A preflight contains no key and ends here. Every other `OPTIONS` continues
//! to its route, such as the handshake of a sender of webhooks.

use super::edge;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use axum::response::Response;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tower::{Layer, Service, ServiceExt};
use tower_http::cors::{AllowHeaders, CorsLayer};
use url::Url;

/// How long browsers may cache the answer to a preflight: the longest time that any of them accepts.
const PREFLIGHT_AGE_MAX: Duration = Duration::from_secs(2 * 60 * 60);
/// The methods of all routes.
const METHODS: [Method; 5] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE];
/// Headers of answers that a page may read, in addition to those that it may always read.
const EXPOSED: [HeaderName; 6] = [
    header::ACCEPT_ENCODING,
    header::ALLOW,
    header::ETAG,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("preference-applied"),
];

/// Rejects origins in a form that no browser sends.
///
/// # Errors What to write instead.
pub(super) fn check(origin: &str) -> Result<(), String> {
    if origin.contains('*') {
        return Err(format!("{origin:?} would give the pages of every origin access to the API: list each origin"));
    }
    let url = Url::parse(origin).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    match url.map(|url| url.origin().ascii_serialization()) {
        Some(sent) if sent == origin => Ok(()),
        Some(sent) => Err(format!("{origin:?} is not in the form that browsers send: use {sent:?}")),
        None => Err(format!("{origin:?} is not an origin: use one such as \"https://desk.example.com\"")),
    }
}

/// Allows the pages of some origins, or of none.
#[derive(Clone)]
pub(super) struct Cors(Option<Arc<CorsLayer>>);

impl Cors {
    /// Allows these origins, each of which [`check`] has accepted.
    pub(super) fn new(origins: &[String]) -> Self {
        let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
        let layer = CorsLayer::new()
            .allow_methods(METHODS)
            // A list would leave out the extension attributes of events (`ce-*`), whose names callers choose.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(EXPOSED)
            .max_age(PREFLIGHT_AGE_MAX);
        Self((!origins.is_empty()).then(|| Arc::new(layer.allow_origin(origins))))
    }

    /// Answers a preflight; passes everything else to `service`, and adds which pages may read the answer.
    pub(super) async fn answer<B, S>(&self, request: Request<B>, service: S) -> Response
    where
        S: Service<Request<B>, Response = Response, Error = Infallible>,
    {
        let is_preflight = is_preflight(request.method(), request.headers());
        let layer = self.0.as_ref().filter(|_| is_preflight || request.method() != Method::OPTIONS);
        let Some(layer) = layer else {
            let Ok(response) = service.oneshot(request).await;
            return response;
        };
        let Ok(mut response) = layer.layer(service).oneshot(request).await;
        if is_preflight {
            edge::finish(&mut response, edge::NO_ROUTE, "OPTIONS");
        }
        response
    }
}

/// Whether the request is a browser's preflight.
fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for origin in
            ["https://desk.example.com", "http://localhost:3000", "http://[::1]:3000", "https://xn--bcher-kva.example"]
        {
            assert_eq!(check(origin), Ok(()), "{origin}");
        }
        for (origin, said) in [
            ("*", "list each origin"),
            ("https://*.example.com", "list each origin"),
            ("https://desk.example.com/", "use \"https://desk.example.com\""),
            ("https://desk.example.com/app", "use \"https://desk.example.com\""),
            ("https://desk.example.com:443", "use \"https://desk.example.com\""),
            ("HTTPS://Desk.Example.com", "use \"https://desk.example.com\""),
            ("https://user@desk.example.com", "use \"https://desk.example.com\""),
            ("https://bücher.example", "use \"https://xn--bcher-kva.example\""),
            ("desk.example.com", "such as"),
            ("localhost:3000", "such as"),
            ("ftp://desk.example.com", "such as"),
            ("file:///app", "such as"),
            ("null", "such as"),
            ("", "such as"),
        ] {
            let message = check(origin).unwrap_err();
            assert!(message.contains(said), "{origin}: {message}");
        }
    }
}
