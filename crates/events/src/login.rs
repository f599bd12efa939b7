//! Authentication facts.

use crate::Topic;
use crate::fact::event_types;
use serde::Serialize;
use std::net::IpAddr;

event_types! {
    /// The facts about accounts and their devices.
    pub enum LoginFact in Topic::Logins as crate::Fact::Login {
        /// An attempt to log in, successful or not.
        Attempted(Box<Login>) = "foretell.login.succeeded" if succeeded else "foretell.login.failed" to Report,
        /// The person states that an attempt was theirs.
        Confirmed(Box<Verdict>) = "foretell.login.confirmed" to Label,
        /// The person states that an attempt was not theirs.
        Reported(Box<Verdict>) = "foretell.login.reported" to Label,
        /// A device is known from now on, until it is revoked.
        DeviceTrusted(DeviceRef) = "foretell.device.trusted" to Report,
        /// A device is new again.
        DeviceRevoked(DeviceRef) = "foretell.device.revoked" to Report,
        /// Everything about the user is forgotten.
        UserErased(UserErasure) = "foretell.user.erased" to Erase,
    }
}

/// What became known about an earlier decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecisionFeedback {
    /// The person states that the attempt was theirs.
    Legitimate,
    /// The person states that it was not.
    Fraud,
    /// The attempt succeeded.
    Succeeded,
    /// The attempt failed.
    Failed,
}

impl LoginFact {
    /// The decision that the fact is feedback on, by its id, and the feedback; none if it is about no decision.
    pub fn feedback(&self) -> Option<(&str, DecisionFeedback)> {
        match self {
            Self::Attempted(login) => {
                let outcome = if login.succeeded { DecisionFeedback::Succeeded } else { DecisionFeedback::Failed };
                login.decision_id.as_deref().map(|id| (id, outcome))
            }
            Self::Confirmed(verdict) => Some((&verdict.decision_id, DecisionFeedback::Legitimate)),
            Self::Reported(verdict) => Some((&verdict.decision_id, DecisionFeedback::Fraud)),
            Self::DeviceTrusted(_) | Self::DeviceRevoked(_) | Self::UserErased(_) => None,
        }
    }
}

/// An attempt to log in (`foretell.login.succeeded`, `foretell.login.failed`).
#[derive(Debug, Clone, PartialEq)]
pub struct Login {
    /// The account.
    pub user_id: String,
    /// Whether it succeeded. A challenged attempt is sent as succeeded only after the challenge was passed.
    pub succeeded: bool,
    /// What the attempt looked like.
    pub attempt: Attempt,
    /// The id of the decision that was requested for it.
    pub decision_id: Option<String>,
    /// The session that began, for the record.
    pub session_id: Option<String>,
    /// How it authenticated, as in `password` or `passkey`.
    pub method: Option<String>,
    /// Why it failed.
    pub failure_reason: Option<String>,
}

/// The properties of an attempt: the same for an event and for a request to score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attempt {
    /// The address it came from; an IPv4-mapped IPv6 address is its IPv4 address.
    pub ip: IpAddr,
    /// The whole `User-Agent` string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// The caller's own device id (cookie, app instance).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// ISO 3166-1 alpha-2, upper case; never a [placeholder](super::country::PLACEHOLDERS).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Autonomous system number of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// City, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// Degrees, -90 to 90; never 0 if the longitude is 0 too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latitude: Option<f64>,
    /// Degrees, -180 to 180.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longitude: Option<f64>,
    /// Browser and version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub browser: Option<String>,
    /// Operating system and version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// As in `mobile`, `desktop`, `tablet`, `bot`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_type: Option<String>,
    /// Round-trip time to the client in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}

impl Attempt {
    /// An attempt of which only the address is known.
    pub fn from_ip(ip: IpAddr) -> Self {
        Self {
            ip,
            user_agent: None,
            device_id: None,
            country: None,
            asn: None,
            city: None,
            latitude: None,
            longitude: None,
            browser: None,
            os: None,
            device_type: None,
            rtt_ms: None,
        }
    }
}

/// The lists of networks that contain an address, at the time of the request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListMatches {
    /// It is on a deny list.
    pub denied: bool,
    /// It is on an allow list: its network reveals little about the place or the person, such as that of an office, a
    /// VPN or a relay.
    pub exempt: bool,
}

/// The person's statement about an attempt (`foretell.login.confirmed`, `foretell.login.reported`).
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The account.
    pub user_id: String,
    /// The decision about the attempt.
    pub decision_id: String,
    /// Who made the statement.
    pub reported_by: Option<String>,
    /// The attempt's own fields, copied from the decision.
    pub ip: Option<IpAddr>,
    /// See [`Attempt::device_id`].
    pub device_id: Option<String>,
    /// See [`Attempt::asn`].
    pub asn: Option<u32>,
    /// See [`Attempt::country`].
    pub country: Option<String>,
    /// See [`Attempt::user_agent`].
    pub user_agent: Option<String>,
    /// Digest of a request with an idempotency key, by which another request under the same key is recognised.
    pub idempotency_digest: Option<String>,
}

/// A device that was trusted or revoked (`foretell.device.trusted`, `foretell.device.revoked`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRef {
    /// The account.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// See [`Verdict::idempotency_digest`].
    pub idempotency_digest: Option<String>,
}

/// A user whose data is erased (`foretell.user.erased`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserErasure {
    /// The account.
    pub user_id: String,
}
