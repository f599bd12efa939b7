//! The data of facts about clients and their appointments.

use super::present;
use crate::appointment::*;
use crate::codec::bounds::{CHANNELS_MAX, DURATION_MINUTES_MAX};
use crate::codec::cursor::{Entry, Fields};
use crate::codec::time;
use crate::fact::Data;
use serde_json::{Map, Value, json};

impl Data for Booking {
    fn read(f: &mut Fields<'_, '_>) -> Self {
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

    fn write(&self) -> Map<String, Value> {
        let (starts_at, zone) = match &self.starts_at {
            StartsAt::Instant { at_ms, zone } => (time::rfc3339(*at_ms), zone.as_deref()),
            StartsAt::Local { local, zone } => (time::wall_clock(*local), Some(zone.as_str())),
        };
        present(json!({
            "appointment_id": self.appointment_id,
            "client_id": self.client_id,
            "starts_at": starts_at,
            "time_zone": zone,
            "duration_minutes": self.duration_minutes,
            "location_id": self.location_id,
            "practitioner_id": self.practitioner_id,
            "service": self.service,
            "booked_at": self.booked_at_ms.map(time::rfc3339),
            "attributes": (!self.attributes.is_empty()).then_some(&self.attributes),
        }))
    }

    fn subject(&self) -> &str {
        &self.client_id
    }
}

impl Data for AppointmentRef {
    fn read(f: &mut Fields<'_, '_>) -> Self {
        AppointmentRef { appointment_id: f.id("appointment_id"), client_id: f.id("client_id") }
    }

    fn write(&self) -> Map<String, Value> {
        present(json!({"appointment_id": self.appointment_id, "client_id": self.client_id}))
    }

    fn subject(&self) -> &str {
        &self.client_id
    }
}

impl Data for Cancellation {
    fn read(f: &mut Fields<'_, '_>) -> Self {
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

    fn write(&self) -> Map<String, Value> {
        present(json!({
            "appointment_id": self.appointment_id,
            "client_id": self.client_id,
            "reason": self.reason,
            "cancelled_by": self.by,
        }))
    }

    fn subject(&self) -> &str {
        &self.client_id
    }
}

impl Data for ClientUpdate {
    fn read(f: &mut Fields<'_, '_>) -> Self {
        ClientUpdate {
            client_id: f.id("client_id"),
            time_zone: f.change("time_zone", Fields::zone),
            language: f.change("language", Fields::language),
            channels: f.change("channels", |f, name| f.list(name, CHANNELS_MAX, consent)),
            quiet_hours: f.change("quiet_hours", |f, name| f.nested(name, quiet_hours)),
            attributes: f.change("attributes", Fields::attributes),
        }
    }

    fn write(&self) -> Map<String, Value> {
        // Unlike in other types, `null` has a meaning here: it clears a field.
        let mut data = Map::new();
        data.insert("client_id".into(), json!(self.client_id));
        insert_change(&mut data, "time_zone", &self.time_zone, |zone| json!(zone));
        insert_change(&mut data, "language", &self.language, |tag| json!(tag));
        insert_change(&mut data, "channels", &self.channels, |channels| json!(channels));
        insert_change(
            &mut data,
            "quiet_hours",
            &self.quiet_hours,
            |hours| json!({"from": time::time_of_day(hours.from_minute), "to": time::time_of_day(hours.to_minute)}),
        );
        insert_change(&mut data, "attributes", &self.attributes, |attributes| json!(attributes));
        data
    }

    fn subject(&self) -> &str {
        &self.client_id
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

fn insert_change<T>(
    data: &mut Map<String, Value>,
    name: &str,
    change: &FieldUpdate<T>,
    write: impl FnOnce(&T) -> Value,
) {
    match change {
        FieldUpdate::Keep => None,
        FieldUpdate::Clear => data.insert(name.to_owned(), Value::Null),
        FieldUpdate::Set(value) => data.insert(name.to_owned(), write(value)),
    };
}

impl Data for ClientErasure {
    fn read(f: &mut Fields<'_, '_>) -> Self {
        Self { client_id: f.id("client_id") }
    }

    fn write(&self) -> Map<String, Value> {
        present(json!({"client_id": self.client_id}))
    }

    fn subject(&self) -> &str {
        &self.client_id
    }
}
