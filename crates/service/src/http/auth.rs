//! Authentication: API keys, their tenants and their scopes.
//!
//! Keys are random and long, so a plain SHA-256 of each is stored, and a leaked file of them gives no access. The
//! digest of the key that was sent is looked up in a table hashed with a secret of the process, and compared in
//! constant time with the one that is found. A look-up therefore takes as long among ten keys as among ten thousand,
//! and its duration reveals nothing about them. Without keys, every caller that can connect may do everything, which is
//! why [`check_listen`] then insists on loopback.
//!
//! For the stream, and only there, a ticket can replace its key ([`tickets`](super::tickets)).
//!
//! The sender of a request is determined before its body is read ([`sender`], for every route that needs a key). What
//! it may do is determined once the route is known: each route is listed in the route table under the scopes that
//! permit it, and its handler takes a [`Caller`]. A route without scopes, or without a sender, is answered 500, and the
//! request is never let through. If the scope depends on the request (the types of events, the kind of a policy or
//! decision), the handler checks it with [`Caller::needs`].

mod scope;

pub use scope::Scope;

use super::Api;
use super::problem::{Problem, ProblemCode};
use super::{query, stream, tickets};
use axum::Extension;
use axum::extract::{FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HeaderValue};
use axum::http::request::Parts;
use foretell_events::DEFAULT_TENANT;
use foretell_events::codec::is_tenant;
use foretell_events::document;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The header that names the tenant.
pub const TENANT_HEADER: &str = "foretell-tenant";
/// Maximum keys in a file.
const KEYS_MAX: usize = 10_000;

/// The scopes that permit a route: any of them. If more depends on the request or the data, the handler checks it.
pub(super) type Scopes = &'static [Scope];

/// A key as it is stored.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// The name of its holder, for people.
    name: String,
    /// SHA-256 of the key, 64 hexadecimal digits.
    sha256: String,
    /// The tenant whose data it gives access to.
    tenant: String,
    /// What it permits.
    scopes: Vec<Scope>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    keys: Vec<Stored>,
}

/// The API keys of a process, by their digests.
#[derive(Debug, Clone)]
pub struct Keys(Arc<HashMap<Hashed, Arc<Stored>>>);

/// The SHA-256 digest of a key or a ticket. Digests are compared in constant time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hashed([u8; 32]);

impl Hashed {
    /// The digest of a key or ticket that was sent.
    pub(super) fn of(sent: &str) -> Self {
        Self(Sha256::digest(sent.as_bytes()).into())
    }
}

impl Hash for Hashed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl PartialEq for Hashed {
    fn eq(&self, other: &Self) -> bool {
        #[cfg(test)]
        tests::COMPARED.with(|compared| compared.set(compared.get() + 1));
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Hashed {}

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidKeys {
    /// It is not TOML, or has unknown fields.
    #[error("the file of API keys cannot be parsed: {0}")]
    Toml(#[from] document::Error),
    /// A key is invalid.
    #[error("API key {name:?}: {expected}")]
    Key {
        /// The name of the key.
        name: String,
        /// What is required.
        expected: &'static str,
    },
    /// There are none, or too many.
    #[error("the file of API keys must contain 1 to 10000 [[keys]]")]
    Count,
}

impl Keys {
    /// Parses a file of keys: TOML with one `[[keys]]` per key, with `name`, `sha256`, `tenant` and `scopes`.
    pub fn parse(text: &str) -> Result<Self, InvalidKeys> {
        let file: File = document::from_toml(text)?;
        if file.keys.is_empty() || file.keys.len() > KEYS_MAX {
            return Err(InvalidKeys::Count);
        }
        let mut keys = HashMap::with_capacity(file.keys.len());
        for key in file.keys {
            let (digest, key) = check(key)?;
            if let Some(key) = keys.insert(digest, Arc::new(key)) {
                return Err(InvalidKeys::Key { name: key.name.clone(), expected: "sha256 must be unique" });
            }
        }
        Ok(Self(Arc::new(keys)))
    }

    /// The stored key that equals the one sent, if there is one.
    fn find(&self, sent: &str) -> Option<&Arc<Stored>> {
        self.0.get(&Hashed::of(sent))
    }
}

fn check(key: Stored) -> Result<(Hashed, Stored), InvalidKeys> {
    let fail = |expected| InvalidKeys::Key { name: key.name.clone(), expected };
    let mut digest = [0; 32];
    hex::decode_to_slice(&key.sha256, &mut digest).map_err(|_| fail("sha256 must be 64 hexadecimal digits"))?;
    if !is_tenant(&key.tenant) {
        return Err(fail("tenant must be 1 to 63 of a-z, 0-9 and -"));
    }
    if key.scopes.is_empty() {
        return Err(fail("scopes must name at least one"));
    }
    Ok((Hashed(digest), key))
}

/// The digest of a key, as files of keys contain it.
pub fn hash(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}

/// A new random key: `fk_` and 244 random bits. It is shown once; only its [`hash`] is stored.
pub fn generate() -> String {
    format!("fk_{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

/// Without keys, the API listens only on loopback, unless the operator insists; otherwise returns the reason.
pub fn check_listen(listen: SocketAddr, keys: Option<&Keys>, insecure: Insecure) -> Result<(), String> {
    if keys.is_some() || listen.ip().is_loopback() || insecure == Insecure::Accepted {
        return Ok(());
    }
    Err(format!(
        "{listen} can be reached from other machines and there are no API keys: set http.api_keys_file, start an \
         embedded instance with --first-key, listen on 127.0.0.1, or accept it with --insecure"
    ))
}

/// Whether the operator accepts that every caller may do everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insecure {
    /// Explicitly accepted.
    Accepted,
    /// Not accepted.
    Refused,
}

/// The sender of a request: the holder of a key or, if there are no keys, the tenant that it names.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    key: Option<Arc<Stored>>,
    /// The tenant from the header, if there are no keys.
    tenant: Option<String>,
    /// It sent a ticket instead of its key.
    has_ticket: bool,
}

/// The sender of a request to a route: 401 if it is unknown, before anything else is checked.
pub(super) fn sender(api: &Api, route: &str, request: &Request) -> Result<Sender, Problem> {
    let headers = request.headers();
    if route == stream::ROUTE
        && let Some(ticket) = tickets::named(request.uri().query())
    {
        return with_ticket(api, &ticket, headers);
    }
    let Some(keys) = &api.keys else {
        return Ok(Sender { key: None, tenant: tenant_header(headers)?.map(str::to_owned), has_ticket: false });
    };
    let unauthenticated = |detail| Problem::new(ProblemCode::Unauthenticated, detail);
    let sent = bearer(headers)?.ok_or_else(|| unauthenticated("send Authorization: Bearer KEY"))?;
    let key = keys.find(sent).ok_or_else(|| unauthenticated("the API key is not valid"))?;
    Ok(Sender { key: Some(key.clone()), tenant: None, has_ticket: false })
}

fn with_ticket(api: &Api, ticket: &str, headers: &HeaderMap) -> Result<Sender, Problem> {
    if bearer(headers)?.is_some() {
        return Err(Problem::new(ProblemCode::MalformedRequest, "send a ticket or an API key, not both").at("/ticket"));
    }
    let detail = "the ticket was used, is older than a minute, or was issued by another process: \
                  get another one with POST /v1/streams/tickets";
    api.tickets
        .redeem(ticket, api.ports.clock.now_ms())
        .ok_or_else(|| Problem::new(ProblemCode::Unauthenticated, detail))
}

impl Sender {
    /// The tenant whose data the request is about.
    pub(super) fn tenant(&self) -> &str {
        let key = self.key.as_ref().map(|key| key.tenant.as_str());
        key.or(self.tenant.as_deref()).unwrap_or(DEFAULT_TENANT)
    }

    /// The name of its key.
    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_ref().map(|key| key.name.as_str())
    }

    /// The same, with a ticket instead of its key.
    pub(super) fn by_ticket(self) -> Self {
        Self { has_ticket: true, ..self }
    }

    /// The caller for handlers: without keys it has all scopes; with a ticket, only the scope that tickets are for.
    fn caller(&self) -> Caller {
        let named = self.key.is_some() || self.tenant.is_some();
        let scopes = match &self.key {
            _ if self.has_ticket => vec![Scope::VisitsRead],
            Some(key) => key.scopes.clone(),
            None => vec![Scope::Admin],
        };
        Caller { tenant: self.tenant().to_owned(), named, scopes }
    }

    /// Rejects a header that is invalid or names another tenant than the key belongs to.
    pub(super) fn check_tenant(&self, headers: &HeaderMap) -> Result<(), Problem> {
        match tenant_header(headers)? {
            Some(header) if header != self.tenant() => Err(Problem::new(
                ProblemCode::TenantForbidden,
                "Foretell-Tenant differs from the tenant of the API key",
            )),
            _ => Ok(()),
        }
    }
}

/// The caller of a handler, after key and header were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant whose data is read and written.
    pub tenant: String,
    /// Whether the caller named the tenant, by key or by header, so that events must not contradict it.
    pub named: bool,
    /// The scopes of the key; without keys, all of them.
    scopes: Vec<Scope>,
}

impl Caller {
    /// Whether the caller may do what a scope permits.
    pub(super) fn may(&self, needed: Scope) -> bool {
        self.scopes.iter().any(|scope| scope.includes(needed))
    }

    /// Rejects a caller that lacks a scope.
    ///
    /// # Errors
    /// [`ProblemCode::ScopeMissing`].
    pub(super) fn needs(&self, needed: Scope) -> Result<(), Problem> {
        self.needs_any(&[needed])
    }

    fn needs_any(&self, needed: &[Scope]) -> Result<(), Problem> {
        if needed.iter().any(|scope| self.may(*scope)) {
            return Ok(());
        }
        let names: Vec<_> = needed.iter().map(|scope| scope.name()).collect();
        Err(Problem::new(ProblemCode::ScopeMissing, format!("the API key needs the scope {}", names.join(" or "))))
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let scopes = Extension::<Scopes>::from_request_parts(parts, api).await;
        let Extension(needed) = scopes.map_err(|_| Problem::internal("a route without a scope"))?;
        let sender = parts.extensions.get::<Sender>();
        let sender = sender.ok_or_else(|| Problem::internal("a route whose sender was not determined"))?;
        let caller = sender.caller();
        caller.needs_any(needed)?;
        query::check(parts)?;
        Ok(caller)
    }
}

fn tenant_header(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = single(headers, TENANT_HEADER)? else { return Ok(None) };
    match value.to_str() {
        Ok(tenant) if is_tenant(tenant) => Ok(Some(tenant)),
        _ => Err(Problem::new(ProblemCode::MalformedRequest, "Foretell-Tenant must be 1 to 63 of a-z, 0-9 and -")),
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let text = single(headers, AUTHORIZATION.as_str())?.and_then(|value| value.to_str().ok());
    let key = text.and_then(|text| text.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Ok(key.map(|(_, key)| key.trim()))
}

/// A header that identifies the sender. Two of them are rejected, because a gateway may have checked the other one.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Problem::new(ProblemCode::MalformedRequest, format!("send the header {name} once"))),
        (value, None) => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    impl Sender {
        /// A sender that names a tenant, if there are no keys.
        pub(in crate::http) fn of_tenant(tenant: &str) -> Self {
            Self { key: None, tenant: Some(tenant.to_owned()), has_ticket: false }
        }
    }

    #[test]
    fn a_ticket_has_no_more_scopes_than_it_is_for() {
        let sender = Sender::of_tenant("acme");
        assert_eq!(sender.caller().scopes, [Scope::Admin]);
        let (key, with_key) = (generate(), |scopes| Keys::parse(&file(&hash("k"), "acme", scopes)).unwrap());
        assert!(with_key("\"admin\"").find(&key).is_none());
        let key = with_key("\"admin\", \"erase\"").find("k").cloned();
        for sender in [sender, Sender { key, tenant: None, has_ticket: false }] {
            let caller = sender.by_ticket().caller();
            assert_eq!((caller.tenant.as_str(), caller.scopes.as_slice()), ("acme", &[Scope::VisitsRead][..]));
        }
    }

    thread_local! {
        /// Digests that were compared.
        pub(super) static COMPARED: Cell<usize> = const { Cell::new(0) };
    }

    #[test]
    fn a_key_is_compared_with_hardly_any_other_however_many_there_are() {
        let key = |n: usize| file(&hash(&n.to_string()), "acme", "\"risk:read\"").replace("crm", &format!("key-{n}"));
        let keys = Keys::parse(&(0..KEYS_MAX).map(key).collect::<String>()).unwrap();
        let before = COMPARED.get();
        for n in 0..1_000 {
            assert!(keys.find(&n.to_string()).is_some_and(|found| found.name == format!("key-{n}")));
            assert!(keys.find(&format!("unknown-{n}")).is_none());
        }
        let compared = COMPARED.get() - before;
        assert!((1_000..2_000).contains(&compared), "{compared}: the one that is found, and seldom another one");
    }

    fn file(sha256: &str, tenant: &str, scopes: &str) -> String {
        format!("[[keys]]\nname = \"crm\"\nsha256 = \"{sha256}\"\ntenant = \"{tenant}\"\nscopes = [{scopes}]\n")
    }

    #[test]
    fn a_key_is_found_by_its_digest_alone() {
        let key = generate();
        let keys = Keys::parse(&file(&hash(&key), "acme", "\"risk:read\"")).unwrap();
        assert_eq!(keys.find(&key).map(|found| found.tenant.as_str()), Some("acme"));
        assert!(keys.find(&hash(&key)).is_none());
        assert!(keys.find("").is_none());
        // FIPS 180-4, the digest of "abc".
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn files_that_would_open_too_much_or_nothing_are_refused() {
        let digest = hash("k");
        for text in [
            String::new(),
            file("abc", "acme", "\"admin\""),
            file(&"é".repeat(32), "acme", "\"admin\""),
            file(&digest, "Acme", "\"admin\""),
            file(&digest, "acme", ""),
            file(&digest, "acme", "\"everything\""),
            file(&digest, "acme", "\"admin\"") + "extra = 1\n",
        ] {
            assert!(Keys::parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn without_keys_only_loopback_is_listened_on() {
        let (inside, outside) = ("127.0.0.1:1".parse().unwrap(), "0.0.0.0:1".parse().unwrap());
        let keys = Keys::parse(&file(&hash("k"), "acme", "\"admin\"")).unwrap();
        assert!(check_listen(inside, None, Insecure::Refused).is_ok());
        assert!(check_listen(outside, None, Insecure::Refused).is_err());
        assert!(check_listen(outside, None, Insecure::Accepted).is_ok());
        assert!(check_listen(outside, Some(&keys), Insecure::Refused).is_ok());
        assert!(check_listen("[::1]:1".parse().unwrap(), None, Insecure::Refused).is_ok());
    }
}
