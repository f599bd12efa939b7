//! Who asks: API keys, their tenants and their scopes.
//!
//! Keys are random and long, so a plain SHA-256 of each is kept, and a file of them that leaks opens nothing. Every
//! stored digest is compared with the one sent, each in constant time, so that time tells nothing about them.
//! Without keys everybody who can connect may do everything, which is why [`check_listen`] then insists on loopback.
//!
//! Each route stands in the route table under the scopes that open it, and its handler takes a [`Caller`]. A route
//! without scopes is answered 500, never let through. Where the scope depends on the request (the types of events, the
//! kind of a policy or decision), the handler checks it with [`Caller::needs`].

use super::Api;
use super::problem::{Code, Problem};
use super::query;
use crate::document;
use crate::event::codec::is_tenant;
use crate::event::{DEFAULT_TENANT, Fact, Topic};
use axum::Extension;
use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The header that names the tenant.
pub const TENANT_HEADER: &str = "foretell-tenant";
/// Most keys of a file.
const KEYS_MAX: usize = 10_000;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scope {
    /// Append events of logins and devices.
    #[serde(rename = "events:logins")]
    EventsLogins,
    /// Append events of appointments and clients, and what became of reminders.
    #[serde(rename = "events:appointments")]
    EventsAppointments,
    /// Label decisions: feedback.
    #[serde(rename = "decisions:label", alias = "feedback:write")]
    DecisionsLabel,
    /// Ask for reminders by hand.
    #[serde(rename = "reminders:write")]
    RemindersWrite,
    /// All four above.
    #[serde(rename = "events:write")]
    EventsWrite,
    /// Erase users and clients.
    #[serde(rename = "erase")]
    Erase,
    /// Ask for scores.
    #[serde(rename = "risk:read")]
    RiskRead,
    /// Read users, decisions about logins and the login policy.
    #[serde(rename = "logins:read")]
    LoginsRead,
    /// Read clients, appointments, the agenda, reminders, decisions about visits, their model and the reminder policy.
    #[serde(rename = "visits:read")]
    VisitsRead,
    /// Both above.
    #[serde(rename = "views:read")]
    ViewsRead,
    /// Publish policies and models.
    #[serde(rename = "policies:write")]
    PoliciesWrite,
    /// All of it.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 12] = [
        Self::EventsLogins,
        Self::EventsAppointments,
        Self::DecisionsLabel,
        Self::RemindersWrite,
        Self::EventsWrite,
        Self::Erase,
        Self::RiskRead,
        Self::LoginsRead,
        Self::VisitsRead,
        Self::ViewsRead,
        Self::PoliciesWrite,
        Self::Admin,
    ];

    /// Those that events are appended with: which one, [`Scope::of`] says.
    pub const APPENDING: [Self; 5] =
        [Self::EventsLogins, Self::EventsAppointments, Self::DecisionsLabel, Self::RemindersWrite, Self::Erase];

    /// The name in files and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EventsLogins => "events:logins",
            Self::EventsAppointments => "events:appointments",
            Self::DecisionsLabel => "decisions:label",
            Self::RemindersWrite => "reminders:write",
            Self::EventsWrite => "events:write",
            Self::Erase => "erase",
            Self::RiskRead => "risk:read",
            Self::LoginsRead => "logins:read",
            Self::VisitsRead => "visits:read",
            Self::ViewsRead => "views:read",
            Self::PoliciesWrite => "policies:write",
            Self::Admin => "admin",
        }
    }

    /// Whether a key with this scope may do what another scope allows.
    pub fn includes(self, other: Self) -> bool {
        self == other
            || match self {
                Self::Admin => true,
                Self::EventsWrite => matches!(
                    other,
                    Self::EventsLogins | Self::EventsAppointments | Self::DecisionsLabel | Self::RemindersWrite
                ),
                Self::ViewsRead => matches!(other, Self::LoginsRead | Self::VisitsRead),
                _ => false,
            }
    }

    /// The scope that appending a fact needs.
    pub fn of(fact: &Fact) -> Self {
        match fact {
            Fact::UserErased { .. } | Fact::ClientErased { .. } => Self::Erase,
            Fact::LoginConfirmed(_) | Fact::LoginReported(_) => Self::DecisionsLabel,
            Fact::ReminderRequested(_) => Self::RemindersWrite,
            Fact::PolicyPublished(_) => Self::PoliciesWrite,
            _ if fact.topic() == Topic::Logins => Self::EventsLogins,
            _ => Self::EventsAppointments,
        }
    }
}

/// The scopes that open a route: any of them. What else depends on what is sent or found, the handler checks.
pub(super) type Scopes = &'static [Scope];

/// A key as it is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// Who has it, for people.
    name: String,
    /// SHA-256 of the key, 64 hexadecimal digits.
    sha256: String,
    /// Whose data it opens.
    tenant: String,
    /// What it may do.
    scopes: Vec<Scope>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    keys: Vec<Stored>,
}

/// The API keys that a process knows.
#[derive(Debug, Clone)]
pub struct Keys(Vec<(Vec<u8>, Stored)>);

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidKeys {
    /// It is not TOML, or has other fields.
    #[error("the file of API keys cannot be parsed: {0}")]
    Toml(#[from] document::Error),
    /// A key is not as it must be.
    #[error("API key {name:?}: {expected}")]
    Key {
        /// Which.
        name: String,
        /// What it must be.
        expected: &'static str,
    },
    /// There are none, or too many.
    #[error("the file of API keys must hold 1 to 10000 [[keys]]")]
    Count,
}

impl Keys {
    /// Reads a file of keys: TOML with one `[[keys]]` a key, of `name`, `sha256`, `tenant` and `scopes`.
    pub fn parse(text: &str) -> Result<Self, InvalidKeys> {
        let file: File = document::from_toml(text)?;
        if file.keys.is_empty() || file.keys.len() > KEYS_MAX {
            return Err(InvalidKeys::Count);
        }
        let keys: Vec<(Vec<u8>, Stored)> = file.keys.into_iter().map(check).collect::<Result<_, _>>()?;
        let mut digests = BTreeSet::new();
        match keys.iter().find(|(digest, _)| !digests.insert(digest)) {
            Some((_, again)) => {
                Err(InvalidKeys::Key { name: again.name.clone(), expected: "sha256 must be no other key's" })
            }
            None => Ok(Self(keys)),
        }
    }

    /// The key that was sent, if it is known.
    fn find(&self, sent: &str) -> Option<&Stored> {
        let digest = Sha256::digest(sent.as_bytes());
        // No early end: all are compared, whichever matches.
        let mut found = None;
        for (known, stored) in &self.0 {
            if bool::from(known.as_slice().ct_eq(digest.as_slice())) {
                found = Some(stored);
            }
        }
        found
    }
}

fn check(key: Stored) -> Result<(Vec<u8>, Stored), InvalidKeys> {
    let fail = |expected| InvalidKeys::Key { name: key.name.clone(), expected };
    let digest = unhex(&key.sha256).ok_or_else(|| fail("sha256 must be 64 hexadecimal digits"))?;
    if !is_tenant(&key.tenant) {
        return Err(fail("tenant must be 1 to 63 of a-z, 0-9 and -"));
    }
    if key.scopes.is_empty() {
        return Err(fail("scopes must name at least one"));
    }
    Ok((digest, key))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..32).map(|at| u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()).collect()
}

/// The digest of a key, as files of keys hold it.
pub fn hash(key: &str) -> String {
    hex(&Sha256::digest(key.as_bytes()))
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A new random key: `fk_` and 244 random bits. It is shown once; only its [`hash`] is kept.
pub fn generate() -> String {
    format!("fk_{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

/// Without keys only loopback is listened on, unless the operator insists; answers why not.
pub fn check_listen(listen: SocketAddr, keys: Option<&Keys>, insecure: Insecure) -> Result<(), String> {
    if keys.is_some() || listen.ip().is_loopback() || insecure == Insecure::Accepted {
        return Ok(());
    }
    Err(format!(
        "{listen} can be reached from elsewhere and there are no API keys; name a file of keys (http.api_keys_file), \
         listen on 127.0.0.1, or say --insecure"
    ))
}

/// Whether the operator accepts that everybody may do everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insecure {
    /// They said so.
    Accepted,
    /// They did not.
    Refused,
}

/// Who calls, after key and header were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whose data is read and written.
    pub tenant: String,
    /// Whether the caller named the tenant, by key or by header, so that events must not contradict it.
    pub named: bool,
    /// The scopes of the key; without keys everybody has all.
    scopes: Vec<Scope>,
}

impl Caller {
    /// Whether the caller may do what a scope allows.
    pub(super) fn may(&self, needed: Scope) -> bool {
        self.scopes.iter().any(|scope| scope.includes(needed))
    }

    /// Refuses a caller who lacks a scope.
    ///
    /// # Errors
    /// [`Code::ScopeMissing`].
    pub(super) fn needs(&self, needed: Scope) -> Result<(), Problem> {
        self.needs_any(&[needed])
    }

    fn needs_any(&self, needed: &[Scope]) -> Result<(), Problem> {
        if needed.iter().any(|scope| self.may(*scope)) {
            return Ok(());
        }
        let names: Vec<_> = needed.iter().map(|scope| scope.name()).collect();
        Err(Problem::new(Code::ScopeMissing, format!("the API key needs the scope {}", names.join(" or "))))
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let scopes = Extension::<Scopes>::from_request_parts(parts, api).await;
        let Extension(needed) = scopes.map_err(|_| Problem::internal("a route without a scope"))?;
        let header = tenant_header(parts)?;
        let Some(keys) = &api.keys else {
            let named = header.is_some();
            query::check(parts)?;
            let tenant = header.unwrap_or(DEFAULT_TENANT).to_owned();
            return Ok(Self { tenant, named, scopes: vec![Scope::Admin] });
        };
        let sent =
            bearer(parts).ok_or_else(|| Problem::new(Code::Unauthenticated, "send Authorization: Bearer KEY"))?;
        let key = keys.find(sent).ok_or_else(|| Problem::new(Code::Unauthenticated, "the API key is not known"))?;
        let caller = Self { tenant: key.tenant.clone(), named: true, scopes: key.scopes.clone() };
        caller.needs_any(needed)?;
        if header.is_some_and(|header| header != key.tenant) {
            return Err(Problem::new(Code::TenantForbidden, "Foretell-Tenant names another tenant than the API key"));
        }
        query::check(parts)?;
        Ok(caller)
    }
}

fn tenant_header(parts: &Parts) -> Result<Option<&str>, Problem> {
    let Some(value) = parts.headers.get(TENANT_HEADER) else { return Ok(None) };
    match value.to_str() {
        Ok(tenant) if is_tenant(tenant) => Ok(Some(tenant)),
        _ => Err(Problem::new(Code::MalformedRequest, "Foretell-Tenant must be 1 to 63 of a-z, 0-9 and -")),
    }
}

fn bearer(parts: &Parts) -> Option<&str> {
    let (scheme, key) = parts.headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn every_scope_is_read_by_its_name_and_includes_what_it_says() {
        for scope in Scope::ALL {
            let keys = Keys::parse(&file(&hash("k"), "acme", &format!("\"{}\"", scope.name()))).unwrap();
            assert_eq!(keys.find("k").map(|found| found.scopes.as_slice()), Some(&[scope][..]));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.name());
            assert!(scope.includes(scope) && Scope::Admin.includes(scope));
            let included: Vec<_> = Scope::ALL.into_iter().filter(|other| scope.includes(*other)).collect();
            let expected = match scope {
                Scope::Admin => Scope::ALL.to_vec(),
                // All that writes events but erasures.
                Scope::EventsWrite => Scope::ALL[..5].to_vec(),
                Scope::ViewsRead => vec![Scope::LoginsRead, Scope::VisitsRead, Scope::ViewsRead],
                other => vec![other],
            };
            assert_eq!(included, expected, "{scope:?}");
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
