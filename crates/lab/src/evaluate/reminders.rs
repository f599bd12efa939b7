//! Reminders: what a policy would have sent for the appointments of a file.
//!
//! The plan and the folds are those of the service, and time passes as it does there: everything that is due before an
//! event happens before it. There is no planner in between, so each client is planned as soon as there is a reason to.
//! After the last event, time continues until nothing is planned any more.

use super::Progress;
use crate::source::SourceData;
use foretell_domain::remind::announce;
use foretell_domain::remind::plan::{self, PlanContext, ReminderAction, ReminderStatus};
use foretell_domain::remind::policy::ReminderPolicy;
use foretell_domain::remind::schedule::Schedule;
use foretell_domain::score::no_show;
use foretell_domain::score::no_show::context::ScoringContext;
use foretell_domain::view::client::{self, AppointmentFold, Client};
use foretell_domain::view::materialized::Materialized;
use foretell_domain::view::sent::{self, ReminderFold, SentReminders};
use foretell_domain::view::{Limits, RecordPosition};
use foretell_events::appointment::Channel;
use foretell_events::codec::{rfc3339, wall_clock};
use foretell_events::reminder::ReminderFact;
use foretell_events::{Event, Fact};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What a test of a policy depends on in addition to the file.
#[derive(Debug, Clone, Default)]
pub struct ReminderOptions {
    /// The policy, which determines what is sent when.
    pub policy: ReminderPolicy,
    /// How visits are scored, with two counters: the level determines which steps apply.
    pub score: no_show::Config,
    /// The limits of the folds.
    pub limits: Limits,
}

/// One event in the life of a reminder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Happened {
    /// The time, RFC 3339.
    pub time: String,
    /// `announced`, `withdrawn`, `deferred`, `suppressed` or `failed`.
    pub status: &'static str,
    /// The tenant.
    pub tenant: String,
    /// The client.
    pub client_id: String,
    /// The appointment.
    pub appointment_id: String,
    /// The step; none for a withdrawal.
    pub step: Option<String>,
    /// The reminder, if there is one.
    pub reminder_id: Option<String>,
    /// The channels, in order of preference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<Channel>,
    /// The template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The risk level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The start in the time zone of the visit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_start: Option<String>,
    /// The number of visits that it mentions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visits: Option<usize>,
    /// The reason, if it is not obvious.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a policy would have sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ReminderCounts {
    /// Events of the file.
    pub events: u64,
    /// How often each event happened, by status and then step or reason.
    pub counts: BTreeMap<String, u64>,
}

impl fmt::Display for ReminderCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "events {}", self.events)?;
        self.counts.iter().try_for_each(|(what, count)| writeln!(f, "{count:>9}  {what}"))
    }
}

/// Replays a file of appointments and plans reminders. `happened` receives each event in order of time, `progress` the
/// completed and the total events. Errors are those of `happened`.
pub fn reminders<E>(
    loaded: &SourceData,
    options: &ReminderOptions,
    happened: &mut dyn FnMut(Happened) -> Result<(), E>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<ReminderCounts, E> {
    let mut summary = ReminderCounts { events: loaded.events.len() as u64, ..ReminderCounts::default() };
    let mut record = |one: Happened| {
        let about = if one.status == "announced" { &one.step } else { &one.reason };
        let what = format!("{} {}", one.status, about.as_deref().unwrap_or_default());
        *summary.counts.entry(what.trim_end().to_owned()).or_default() += 1;
        happened(one)
    };
    let mut replay = Replay::new(options);
    let mut progress = Progress { report: progress, total: loaded.events.len() };
    for (offset, sourced) in loaded.events.iter().enumerate() {
        replay.until(sourced.event.envelope.time_ms, &mut record)?;
        replay.take(&sourced.event, &mut record)?;
        progress.done(offset + 1);
    }
    replay.until(i64::MAX, &mut record)?;
    Ok(summary)
}

struct Replay<'a> {
    options: &'a ReminderOptions,
    visits: Materialized<AppointmentFold>,
    sent: Materialized<ReminderFold>,
    schedule: Schedule,
    score: Arc<no_show::Config>,
    offset: i64,
}

impl<'a> Replay<'a> {
    fn new(options: &'a ReminderOptions) -> Self {
        let limits = &options.limits;
        Self {
            options,
            visits: Materialized::new(AppointmentFold { limits: limits.clone() }),
            sent: Materialized::new(ReminderFold { limits: limits.clone() }),
            schedule: Schedule::default(),
            score: Arc::new(options.score.clone()),
            offset: 0,
        }
    }

    /// Processes everything that is due before `time_ms`.
    fn until<E>(&mut self, time_ms: i64, record: &mut dyn FnMut(Happened) -> Result<(), E>) -> Result<(), E> {
        loop {
            let next = self.schedule.due(time_ms.saturating_sub(1), 1).next().cloned();
            let Some((at_ms, key)) = next else { return Ok(()) };
            self.evaluate(&key, at_ms, Some(at_ms), record)?;
        }
    }

    fn take<E>(&mut self, event: &Event, record: &mut dyn FnMut(Happened) -> Result<(), E>) -> Result<(), E> {
        self.offset += 1;
        self.visits.take(event, RecordPosition { partition: 0, offset: self.offset });
        if matches!(event.fact, Fact::Reminder(ReminderFact::Due(_) | ReminderFact::Withdrawn(_))) {
            return Ok(());
        }
        self.evaluate(&event.key(), event.envelope.time_ms, None, record)
    }

    /// Plans a client and carries out the plan; `due_ms` is the instant that was waited for, if any.
    fn evaluate<E>(
        &mut self,
        key: &str,
        now_ms: i64,
        due_ms: Option<i64>,
        record: &mut dyn FnMut(Happened) -> Result<(), E>,
    ) -> Result<(), E> {
        let (tenant, client_id) = key.split_once(':').unwrap_or(("", key));
        let plan = self.plan(key, tenant, client_id, now_ms);
        for step in plan.unsent.iter().filter(|step| due_ms.is_some_and(|due_ms| step.due_at_ms >= due_ms)) {
            record(Happened::unsent(step, Happened::of(tenant, client_id, now_ms)))?;
        }
        let is_done = plan.actions.is_empty();
        for action in plan.actions {
            record(Happened::action(&action, Happened::of(tenant, client_id, now_ms)))?;
            let (event, _) = announce::event_of(tenant, client_id, action, now_ms);
            self.offset += 1;
            self.sent.take(&event, RecordPosition { partition: 0, offset: self.offset });
        }
        // Carrying out an action may require another one, such as for a visit mentioned together with a cancelled one.
        let next_ms = if is_done { plan.next_at_ms } else { Some(now_ms) };
        self.schedule.set(key, next_ms);
        if !is_done {
            return self.evaluate(key, now_ms, None, record);
        }
        Ok(())
    }

    fn plan(&self, key: &str, tenant: &str, client_id: &str, now_ms: i64) -> plan::Plan {
        let (no_client, nothing) = (Client::default(), SentReminders::default());
        let client = self.visits.owner(&client::row_key(tenant, client_id)).unwrap_or(&no_client);
        let sent = self.sent.owner(&sent::row_key(tenant, client_id)).unwrap_or(&nothing);
        let basis = ScoringContext::counting(self.score.clone(), Arc::new(self.visits.lead(tenant)));
        let risks = foretell_domain::remind::risk::risks(client, &basis, now_ms);
        let policy = &self.options.policy;
        plan::client(&PlanContext { key, client, sent, policy, risks: &risks, now_ms })
    }
}

impl Happened {
    fn of(tenant: &str, client_id: &str, time_ms: i64) -> Self {
        Self {
            time: rfc3339(time_ms),
            status: ReminderStatus::Planned.name(),
            tenant: tenant.to_owned(),
            client_id: client_id.to_owned(),
            appointment_id: String::new(),
            step: None,
            reminder_id: None,
            channels: Vec::new(),
            template: None,
            level: None,
            local_start: None,
            visits: None,
            reason: None,
        }
    }

    fn unsent(step: &plan::UnsentStep, empty: Self) -> Self {
        let plan::UnsentStep { appointment_id, step, status, reason, .. } = step.clone();
        Self { status: status.name(), appointment_id, step: Some(step), reason, ..empty }
    }

    fn action(action: &ReminderAction, empty: Self) -> Self {
        match action {
            ReminderAction::Announce(announce) => Self {
                status: "announced",
                appointment_id: announce.appointment_id.clone(),
                step: Some(announce.step.clone()),
                reminder_id: Some(announce.reminder_id.clone()),
                channels: announce.channels.clone(),
                template: Some(announce.template.clone()),
                level: announce.risk.as_ref().map(|risk| risk.level.clone()),
                local_start: Some(wall_clock(announce.start.local())),
                visits: Some(announce.visits.len().max(1)),
                ..empty
            },
            ReminderAction::Withdraw { reminder_id, appointment_id, reason, .. } => Self {
                status: ReminderStatus::Withdrawn.name(),
                appointment_id: appointment_id.clone(),
                reminder_id: Some(reminder_id.clone()),
                reason: Some((*reason).to_owned()),
                ..empty
            },
        }
    }
}
