//! The data of facts about accounts and devices.

use super::present;
use crate::codec::bounds::RTT_MS_MAX;
use crate::codec::cursor::Fields;
use crate::fact::Data;
use crate::login::{Attempt, DeviceRef, Login, UserErasure, Verdict};
use serde_json::{Map, Value, json};

impl Data for Login {
    fn read(f: &mut Fields<'_, '_>) -> Self {
        Login {
            user_id: f.id("user_id"),
            // Of the two types of an attempt, this is the first; see `LoginFact`.
            succeeded: true,
            attempt: attempt(f),
            decision_id: f.optional_id("decision_id"),
            session_id: f.optional_id("session_id"),
            method: f.text("method"),
            failure_reason: f.text("failure_reason"),
        }
    }

    fn write(&self) -> Map<String, Value> {
        let attempt = &self.attempt;
        present(json!({
            "user_id": self.user_id,
            "ip": attempt.ip,
            "decision_id": self.decision_id,
            "user_agent": attempt.user_agent,
            "device_id": attempt.device_id,
            "session_id": self.session_id,
            "method": self.method,
            "failure_reason": self.failure_reason,
            "country": attempt.country,
            "asn": attempt.asn,
            "city": attempt.city,
            "latitude": attempt.latitude,
            "longitude": attempt.longitude,
            "browser": attempt.browser,
            "os": attempt.os,
            "device_type": attempt.device_type,
            "rtt_ms": attempt.rtt_ms,
        }))
    }

    fn subject(&self) -> &str {
        &self.user_id
    }

    fn country(&self) -> Option<&str> {
        self.attempt.country.as_deref()
    }
}

/// What an attempt looks like: the same fields in an event and in a request to score.
pub fn attempt(f: &mut Fields<'_, '_>) -> Attempt {
    let mut attempt = Attempt {
        ip: f.ip("ip"),
        user_agent: f.user_agent("user_agent"),
        device_id: f.optional_id("device_id"),
        country: f.country("country"),
        asn: f.integer("asn", 0, u32::MAX),
        city: f.text("city"),
        latitude: f.number("latitude", -90.0, 90.0),
        longitude: f.number("longitude", -180.0, 180.0),
        browser: f.label("browser"),
        os: f.label("os"),
        device_type: f.label("device_type"),
        rtt_ms: f.number("rtt_ms", 0.0, RTT_MS_MAX),
    };
    // Sources send this if they do not know the location.
    if (attempt.latitude, attempt.longitude) == (Some(0.0), Some(0.0)) {
        (attempt.latitude, attempt.longitude) = (None, None);
    }
    attempt
}

/// Where an attempt came from, field by field; `null` where that is not known.
pub(in crate::codec) fn place_data(attempt: &Attempt) -> [(&'static str, Value); 5] {
    [
        ("country", json!(attempt.country)),
        ("asn", json!(attempt.asn)),
        ("city", json!(attempt.city)),
        ("latitude", json!(attempt.latitude)),
        ("longitude", json!(attempt.longitude)),
    ]
}

impl Data for Verdict {
    fn read(f: &mut Fields<'_, '_>) -> Self {
        Verdict {
            user_id: f.id("user_id"),
            decision_id: f.id("decision_id"),
            reported_by: f.text("reported_by"),
            ip: f.optional_ip("ip"),
            device_id: f.optional_id("device_id"),
            asn: f.integer("asn", 0, u32::MAX),
            country: f.country("country"),
            user_agent: f.user_agent("user_agent"),
            idempotency_digest: f.lenient_id("idempotency_digest"),
        }
    }

    fn write(&self) -> Map<String, Value> {
        present(json!({
            "user_id": self.user_id,
            "decision_id": self.decision_id,
            "reported_by": self.reported_by,
            "ip": self.ip,
            "device_id": self.device_id,
            "asn": self.asn,
            "country": self.country,
            "user_agent": self.user_agent,
            "idempotency_digest": self.idempotency_digest,
        }))
    }

    fn subject(&self) -> &str {
        &self.user_id
    }

    fn country(&self) -> Option<&str> {
        self.country.as_deref()
    }

    fn idempotency_digest(&self) -> Option<&str> {
        self.idempotency_digest.as_deref()
    }

    fn set_idempotency_digest(&mut self, digest: &str) {
        self.idempotency_digest = Some(digest.to_owned());
    }
}

impl Data for DeviceRef {
    fn read(f: &mut Fields<'_, '_>) -> Self {
        DeviceRef {
            user_id: f.id("user_id"),
            device_id: f.id("device_id"),
            idempotency_digest: f.lenient_id("idempotency_digest"),
        }
    }

    fn write(&self) -> Map<String, Value> {
        present(json!({
            "user_id": self.user_id,
            "device_id": self.device_id,
            "idempotency_digest": self.idempotency_digest,
        }))
    }

    fn subject(&self) -> &str {
        &self.user_id
    }

    fn idempotency_digest(&self) -> Option<&str> {
        self.idempotency_digest.as_deref()
    }

    fn set_idempotency_digest(&mut self, digest: &str) {
        self.idempotency_digest = Some(digest.to_owned());
    }
}

impl Data for UserErasure {
    fn read(f: &mut Fields<'_, '_>) -> Self {
        Self { user_id: f.id("user_id") }
    }

    fn write(&self) -> Map<String, Value> {
        present(json!({"user_id": self.user_id}))
    }

    fn subject(&self) -> &str {
        &self.user_id
    }
}
