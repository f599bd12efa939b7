//! The data of every type: from fields to a [`Fact`], and back.
//!
//! One function a shape, one match a direction. What a field may hold is said by the method that reads it; what a
//! type needs is said here and, for people and other programs, in the schema of the same name under `catalog/`.

use super::bounds::*;
use super::cursor::{Entry, Fields};
use super::time;
use crate::Fact;
use crate::appointment::*;
use crate::login::{Attempt, Device, Login, Verdict};
use crate::policy::{DOCUMENT_BYTES_MAX, EARLIER_MAX, Kind, Publication, Version};
use crate::reminder::{Announcement, Feedback, NamedVisit, Request, Risk, Withdrawal};
use serde_json::{Map, Value, json};

/// Reads the data of a type; `None` where there is no such type.
pub(super) fn read(type_name: &str, f: &mut Fields<'_, '_>) -> Option<Fact> {
    Some(match type_name {
        "foretell.login.succeeded" => Fact::Login(Box::new(login(f, true))),
        "foretell.login.failed" => Fact::Login(Box::new(login(f, false))),
        "foretell.login.confirmed" => Fact::LoginConfirmed(Box::new(verdict(f))),
        "foretell.login.reported" => Fact::LoginReported(Box::new(verdict(f))),
        "foretell.device.trusted" => Fact::DeviceTrusted(device(f)),
        "foretell.device.revoked" => Fact::DeviceRevoked(device(f)),
        "foretell.user.erased" => Fact::UserErased { user_id: f.id("user_id") },
        "foretell.appointment.booked" => Fact::Booked(Box::new(booking(f))),
        "foretell.appointment.rescheduled" => Fact::Rescheduled(Box::new(booking(f))),
        "foretell.appointment.confirmed" => Fact::Confirmed(visit(f)),
        "foretell.appointment.attended" => Fact::Attended(visit(f)),
        "foretell.appointment.missed" => Fact::Missed(visit(f)),
        "foretell.appointment.cancelled" => Fact::Cancelled(cancellation(f)),
        "foretell.appointment.deleted" => Fact::Deleted(visit(f)),
        "foretell.client.updated" => Fact::ClientUpdated(Box::new(client_update(f))),
        "foretell.client.erased" => Fact::ClientErased { client_id: f.id("client_id") },
        "foretell.reminder.requested" => Fact::ReminderRequested(Box::new(request(f))),
        "foretell.reminder.delivered" => Fact::ReminderDelivered(Box::new(feedback(f))),
        "foretell.reminder.failed" => Fact::ReminderFailed(Box::new(feedback(f))),
        "foretell.reminder.confirmed_by_client" => Fact::ConfirmedByClient(Box::new(feedback(f))),
        "foretell.policy.published" => Fact::PolicyPublished(Box::new(publication(f))),
        "foretell.reminder.due" => Fact::ReminderDue(Box::new(announcement(f))),
        "foretell.reminder.withdrawn" => Fact::ReminderWithdrawn(withdrawal(f)),
        _ => return None,
    })
}

fn login(f: &mut Fields<'_, '_>, succeeded: bool) -> Login {
    Login {
        user_id: f.id("user_id"),
        succeeded,
        attempt: attempt(f),
        decision_id: f.optional_id("decision_id"),
        session_id: f.optional_id("session_id"),
        method: f.text("method"),
        failure_reason: f.text("failure_reason"),
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
    // What sources send when they know no place.
    if (attempt.latitude, attempt.longitude) == (Some(0.0), Some(0.0)) {
        (attempt.latitude, attempt.longitude) = (None, None);
    }
    attempt
}

fn verdict(f: &mut Fields<'_, '_>) -> Verdict {
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

fn device(f: &mut Fields<'_, '_>) -> Device {
    Device {
        user_id: f.id("user_id"),
        device_id: f.id("device_id"),
        idempotency_digest: f.lenient_id("idempotency_digest"),
    }
}

fn booking(f: &mut Fields<'_, '_>) -> Booking {
    Booking {
        appointment_id: f.id("appointment_id"),
        client_id: f.id("client_id"),
        starts_at: f.starts_at(),
        duration_minutes: f.integer("duration_minutes", 1, DURATION_MINUTES_MAX),
        location_id: f.optional_id("location_id"),
        practitioner_id: f.optional_id("practitioner_id"),
        service: f.text("service"),
        booked_at_ms: f.instant("booked_at"),
        attributes: f.attributes("attributes").unwrap_or_default(),
    }
}

fn visit(f: &mut Fields<'_, '_>) -> Visit {
    Visit { appointment_id: f.id("appointment_id"), client_id: f.id("client_id") }
}

fn cancellation(f: &mut Fields<'_, '_>) -> Cancellation {
    Cancellation {
        appointment_id: f.id("appointment_id"),
        client_id: f.id("client_id"),
        reason: f.text("reason"),
        by: f.choice("cancelled_by", |name| match name {
            "client" => Some(CancelledBy::Client),
            "business" => Some(CancelledBy::Business),
            _ => None,
        }),
    }
}

fn client_update(f: &mut Fields<'_, '_>) -> ClientUpdate {
    ClientUpdate {
        client_id: f.id("client_id"),
        time_zone: f.change("time_zone", Fields::zone),
        language: f.change("language", Fields::language),
        channels: f.change("channels", |f, name| f.list(name, CHANNELS_MAX, consent)),
        quiet_hours: f.change("quiet_hours", |f, name| f.nested(name, quiet_hours)),
        attributes: f.change("attributes", Fields::attributes),
    }
}

fn consent(entry: &mut Entry<'_, '_>) -> Option<Consent> {
    entry.object(|f| Consent {
        channel: f.required_choice("channel", Channel::Email, Channel::parse),
        consent: f.flag("consent"),
        address_ref: f.text("address_ref"),
    })
}

fn quiet_hours(f: &mut Fields<'_, '_>) -> QuietHours {
    QuietHours { from_minute: f.minute_of_day("from"), to_minute: f.minute_of_day("to") }
}

fn request(f: &mut Fields<'_, '_>) -> Request {
    Request {
        appointment_id: f.id("appointment_id"),
        client_id: f.id("client_id"),
        channels: f.list("channels", CHANNELS_MAX, channel).unwrap_or_default(),
        template: f.text("template"),
        reason: f.text("reason"),
        idempotency_digest: f.optional_id("idempotency_digest"),
    }
}

fn feedback(f: &mut Fields<'_, '_>) -> Feedback {
    Feedback {
        reminder_id: f.id("reminder_id"),
        appointment_id: f.id("appointment_id"),
        client_id: f.id("client_id"),
        channel: f.choice("channel", Channel::parse),
        reason: f.text("reason"),
    }
}

fn channel(entry: &mut Entry<'_, '_>) -> Option<Channel> {
    entry.choice(Channel::parse)
}

fn announcement(f: &mut Fields<'_, '_>) -> Announcement {
    Announcement {
        reminder_id: f.id("reminder_id"),
        appointment_id: f.id("appointment_id"),
        client_id: f.id("client_id"),
        starts_at: f.instant_text("starts_at"),
        local_start: f.local_text("local_start"),
        time_zone: f.required_zone("time_zone"),
        step: f.required_text("step"),
        channels: f.required_list("channels", CHANNELS_MAX, channel),
        template: f.required_text("template"),
        risk: f
            .nested("risk", |f| Risk { score: f.required_number("score", 0.0, 1.0), level: f.required_text("level") }),
        expires_at: f.instant_text("expires_at"),
        visits: f.list("visits", VISITS_MAX, named_visit).unwrap_or_default(),
    }
}

fn named_visit(entry: &mut Entry<'_, '_>) -> Option<NamedVisit> {
    entry.object(|f| NamedVisit {
        appointment_id: f.id("appointment_id"),
        starts_at: f.instant_text("starts_at"),
        local_start: f.local_text("local_start"),
    })
}

fn withdrawal(f: &mut Fields<'_, '_>) -> Withdrawal {
    Withdrawal {
        reminder_id: f.id("reminder_id"),
        appointment_id: f.id("appointment_id"),
        client_id: f.id("client_id"),
        reason: f.required_text("reason"),
    }
}

fn publication(f: &mut Fields<'_, '_>) -> Publication {
    Publication {
        kind: f.required_choice("policy", Kind::Login, Kind::parse),
        version: f.required_integer("version", 1, u32::MAX),
        document: f.document("document", DOCUMENT_BYTES_MAX),
        published_by: f.text("published_by"),
        request: f.lenient_id("request"),
        earlier: f.list("earlier", EARLIER_MAX, version).unwrap_or_default(),
    }
}

fn version(entry: &mut Entry<'_, '_>) -> Option<Version> {
    entry.object(|f| Version {
        version: f.required_integer("version", 1, u32::MAX),
        published_at_ms: f.required_instant("published_at"),
        document: f.document("document", DOCUMENT_BYTES_MAX),
        request: f.lenient_id("request"),
    })
}

/// The data of a fact as it is written; reading it again gives the same fact.
pub fn fact_data(fact: &Fact) -> Map<String, Value> {
    let data = match fact {
        Fact::Login(login) => login_data(login),
        Fact::LoginConfirmed(verdict) | Fact::LoginReported(verdict) => verdict_data(verdict),
        Fact::DeviceTrusted(device) | Fact::DeviceRevoked(device) => {
            json!({
                "user_id": device.user_id,
                "device_id": device.device_id,
                "idempotency_digest": device.idempotency_digest,
            })
        }
        Fact::UserErased { user_id } => json!({"user_id": user_id}),
        Fact::Booked(booking) | Fact::Rescheduled(booking) => booking_data(booking),
        Fact::Confirmed(visit) | Fact::Attended(visit) | Fact::Missed(visit) | Fact::Deleted(visit) => {
            json!({"appointment_id": visit.appointment_id, "client_id": visit.client_id})
        }
        Fact::Cancelled(cancellation) => json!({
            "appointment_id": cancellation.appointment_id,
            "client_id": cancellation.client_id,
            "reason": cancellation.reason,
            "cancelled_by": cancellation.by,
        }),
        Fact::ClientUpdated(update) => return client_data(update),
        Fact::ClientErased { client_id } => json!({"client_id": client_id}),
        Fact::ReminderRequested(request) => json!({
            "appointment_id": request.appointment_id,
            "client_id": request.client_id,
            "channels": (!request.channels.is_empty()).then_some(&request.channels),
            "template": request.template,
            "reason": request.reason,
            "idempotency_digest": request.idempotency_digest,
        }),
        Fact::ReminderDelivered(feedback) | Fact::ReminderFailed(feedback) | Fact::ConfirmedByClient(feedback) => {
            json!({
                "reminder_id": feedback.reminder_id,
                "appointment_id": feedback.appointment_id,
                "client_id": feedback.client_id,
                "channel": feedback.channel,
                "reason": feedback.reason,
            })
        }
        Fact::PolicyPublished(publication) => publication_data(publication),
        Fact::ReminderDue(announcement) => json!(announcement),
        Fact::ReminderWithdrawn(withdrawal) => json!(withdrawal),
    };
    let Value::Object(mut data) = data else { return Map::new() };
    data.retain(|_, value| !value.is_null());
    data
}

fn login_data(login: &Login) -> Value {
    let attempt = &login.attempt;
    json!({
        "user_id": login.user_id,
        "ip": attempt.ip,
        "decision_id": login.decision_id,
        "user_agent": attempt.user_agent,
        "device_id": attempt.device_id,
        "session_id": login.session_id,
        "method": login.method,
        "failure_reason": login.failure_reason,
        "country": attempt.country,
        "asn": attempt.asn,
        "city": attempt.city,
        "latitude": attempt.latitude,
        "longitude": attempt.longitude,
        "browser": attempt.browser,
        "os": attempt.os,
        "device_type": attempt.device_type,
        "rtt_ms": attempt.rtt_ms,
    })
}

/// Where an attempt came from, field by field; `null` where that is not known.
pub(super) fn place_data(attempt: &Attempt) -> [(&'static str, Value); 5] {
    [
        ("country", json!(attempt.country)),
        ("asn", json!(attempt.asn)),
        ("city", json!(attempt.city)),
        ("latitude", json!(attempt.latitude)),
        ("longitude", json!(attempt.longitude)),
    ]
}

fn verdict_data(verdict: &Verdict) -> Value {
    json!({
        "user_id": verdict.user_id,
        "decision_id": verdict.decision_id,
        "reported_by": verdict.reported_by,
        "ip": verdict.ip,
        "device_id": verdict.device_id,
        "asn": verdict.asn,
        "country": verdict.country,
        "user_agent": verdict.user_agent,
        "idempotency_digest": verdict.idempotency_digest,
    })
}

fn publication_data(publication: &Publication) -> Value {
    let document = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let earlier = publication.earlier.iter().map(|version| {
        let mut earlier = json!({
            "version": version.version,
            "published_at": time::rfc3339(version.published_at_ms),
            "document": document(&version.document),
        });
        if let Some(request) = &version.request {
            earlier["request"] = json!(request);
        }
        earlier
    });
    json!({
        "policy": publication.kind.name(),
        "version": publication.version,
        "document": document(&publication.document),
        "published_by": publication.published_by,
        "request": publication.request,
        "earlier": earlier.collect::<Vec<_>>(),
    })
}

fn booking_data(booking: &Booking) -> Value {
    let (starts_at, zone) = match &booking.starts_at {
        StartsAt::Instant { at_ms, zone } => (time::rfc3339(*at_ms), zone.as_deref()),
        StartsAt::Local { local, zone } => (time::wall_clock(*local), Some(zone.as_str())),
    };
    json!({
        "appointment_id": booking.appointment_id,
        "client_id": booking.client_id,
        "starts_at": starts_at,
        "time_zone": zone,
        "duration_minutes": booking.duration_minutes,
        "location_id": booking.location_id,
        "practitioner_id": booking.practitioner_id,
        "service": booking.service,
        "booked_at": booking.booked_at_ms.map(time::rfc3339),
        "attributes": (!booking.attributes.is_empty()).then_some(&booking.attributes),
    })
}

/// Unlike elsewhere `null` has a meaning here: it clears.
fn client_data(update: &ClientUpdate) -> Map<String, Value> {
    let mut data = Map::new();
    data.insert("client_id".into(), json!(update.client_id));
    insert_change(&mut data, "time_zone", &update.time_zone, |zone| json!(zone));
    insert_change(&mut data, "language", &update.language, |tag| json!(tag));
    insert_change(&mut data, "channels", &update.channels, |channels| json!(channels));
    insert_change(
        &mut data,
        "quiet_hours",
        &update.quiet_hours,
        |hours| json!({"from": time::time_of_day(hours.from_minute), "to": time::time_of_day(hours.to_minute)}),
    );
    insert_change(&mut data, "attributes", &update.attributes, |attributes| json!(attributes));
    data
}

fn insert_change<T>(data: &mut Map<String, Value>, name: &str, change: &Change<T>, write: impl FnOnce(&T) -> Value) {
    match change {
        Change::Keep => None,
        Change::Clear => data.insert(name.to_owned(), Value::Null),
        Change::Set(value) => data.insert(name.to_owned(), write(value)),
    };
}
