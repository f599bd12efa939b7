//! The data of facts about reminders.

use super::present;
use crate::appointment::Channel;
use crate::codec::bounds::{CHANNELS_MAX, VISITS_MAX};
use crate::codec::cursor::{Entry, Fields};
use crate::fact::Data;
use crate::reminder::{Announcement, Feedback, NamedVisit, Request, Risk, Withdrawal};
use serde_json::{Map, Value, json};

impl Data for Request {
    fn read(f: &mut Fields<'_, '_>) -> Self {
        Request {
            appointment_id: f.id("appointment_id"),
            client_id: f.id("client_id"),
            channels: f.list("channels", CHANNELS_MAX, channel).unwrap_or_default(),
            template: f.text("template"),
            reason: f.text("reason"),
            idempotency_digest: f.optional_id("idempotency_digest"),
        }
    }

    fn write(&self) -> Map<String, Value> {
        present(json!({
            "appointment_id": self.appointment_id,
            "client_id": self.client_id,
            "channels": (!self.channels.is_empty()).then_some(&self.channels),
            "template": self.template,
            "reason": self.reason,
            "idempotency_digest": self.idempotency_digest,
        }))
    }

    fn subject(&self) -> &str {
        &self.client_id
    }

    fn idempotency_digest(&self) -> Option<&str> {
        self.idempotency_digest.as_deref()
    }

    fn set_idempotency_digest(&mut self, digest: &str) {
        self.idempotency_digest = Some(digest.to_owned());
    }
}

impl Data for Feedback {
    fn read(f: &mut Fields<'_, '_>) -> Self {
        Feedback {
            reminder_id: f.id("reminder_id"),
            appointment_id: f.id("appointment_id"),
            client_id: f.id("client_id"),
            channel: f.choice("channel", Channel::parse),
            reason: f.text("reason"),
        }
    }

    fn write(&self) -> Map<String, Value> {
        present(json!({
            "reminder_id": self.reminder_id,
            "appointment_id": self.appointment_id,
            "client_id": self.client_id,
            "channel": self.channel,
            "reason": self.reason,
        }))
    }

    fn subject(&self) -> &str {
        &self.client_id
    }
}

fn channel(entry: &mut Entry<'_, '_>) -> Option<Channel> {
    entry.choice(Channel::parse)
}

impl Data for Announcement {
    fn read(f: &mut Fields<'_, '_>) -> Self {
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
            risk: f.nested("risk", |f| Risk {
                score: f.required_number("score", 0.0, 1.0),
                level: f.required_text("level"),
            }),
            expires_at: f.instant_text("expires_at"),
            visits: f.list("visits", VISITS_MAX, named_visit).unwrap_or_default(),
        }
    }

    fn write(&self) -> Map<String, Value> {
        present(json!(self))
    }

    fn subject(&self) -> &str {
        &self.client_id
    }
}

fn named_visit(entry: &mut Entry<'_, '_>) -> Option<NamedVisit> {
    entry.object(|f| NamedVisit {
        appointment_id: f.id("appointment_id"),
        starts_at: f.instant_text("starts_at"),
        local_start: f.local_text("local_start"),
    })
}

impl Data for Withdrawal {
    fn read(f: &mut Fields<'_, '_>) -> Self {
        Withdrawal {
            reminder_id: f.id("reminder_id"),
            appointment_id: f.id("appointment_id"),
            client_id: f.id("client_id"),
            reason: f.required_text("reason"),
        }
    }

    fn write(&self) -> Map<String, Value> {
        present(json!(self))
    }

    fn subject(&self) -> &str {
        &self.client_id
    }
}
