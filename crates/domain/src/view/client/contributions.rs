//! What an event about a client changes in other places: in the agenda, the look-up, the tenant's leads and outcomes,
//! and the client's counts.
//!
//! Everything is the difference of two footprints, before and after, so that a correction subtracts exactly what was
//! added before.

use super::{Appointment, AppointmentStatus, Client, ClientHistory, SETTLED_DAYS_MAX};
use crate::address::{Bucket, View};
use crate::view::agenda;
use crate::view::lead::{self, LeadChange};
use crate::view::lookup::{self, Claim};
use crate::view::outcome::{self, Sample};
use crate::view::{Contribution, Delta, RecordPosition};
use foretell_events::{Envelope, Event};
use std::collections::{BTreeMap, BTreeSet};

/// How a visit with a known outcome counts.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Resolved {
    /// Local day, since the epoch.
    day: i64,
    missed: bool,
    /// Bucket of its lead.
    bucket: u8,
}

/// What one appointment contributes to the history, and where it must be found.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Footprint {
    history: ClientHistory,
    agenda_at_ms: Option<i64>,
    claim: Option<Claim>,
    requested_at_ms: BTreeSet<i64>,
    resolved: Option<Resolved>,
    /// Local day of a visit with an outcome, and the outcome with what was known before.
    sample: Option<(i64, Sample)>,
}

impl Appointment {
    fn resolved(&self) -> Option<Resolved> {
        let (day, missed) = (self.resolved_day()?, self.status == AppointmentStatus::Missed);
        Some(Resolved { day, missed, bucket: lead::bucket(self.lead_days()?) })
    }
}

impl Footprint {
    /// That of an appointment; empty without one.
    pub(super) fn of(appointment: Option<&Appointment>) -> Self {
        let mut print = Self::default();
        let Some(appointment) = appointment else { return print };
        print.requested_at_ms = appointment.requests.iter().map(|asked| asked.at_ms).collect();
        let Some(start) = &appointment.start else { return print };
        if appointment.status == AppointmentStatus::Deleted {
            return print;
        }
        let is_on = appointment.status != AppointmentStatus::Cancelled;
        print.claim = Some(Claim { is_on, placed_at_ms: appointment.placed_at_ms });
        print.agenda_at_ms = appointment.status.is_open().then_some(start.at_ms);
        print.history.rescheduled = i64::from(appointment.rescheduled);
        print.resolved = appointment.resolved();
        print.sample =
            print.resolved.zip(appointment.snapshot.as_ref()).map(|(Resolved { day, missed, .. }, snapshot)| {
                (day, Sample { snapshot: snapshot.as_ref().clone(), missed })
            });
        match appointment.status {
            AppointmentStatus::Attended => print.history.attended = 1,
            AppointmentStatus::Missed => print.history.missed = 1,
            AppointmentStatus::Cancelled if appointment.is_late_cancelled() => print.history.late_cancelled = 1,
            AppointmentStatus::Cancelled => print.history.cancelled = 1,
            AppointmentStatus::Booked | AppointmentStatus::Confirmed | AppointmentStatus::Deleted => {}
        }
        print
    }
}

/// Local day (since the epoch) to the outcome that it counts with: lead bucket, missed.
type Days = BTreeMap<i64, (u8, bool)>;

/// Collects what an event changes in other rows.
pub(super) struct ContributionBuilder<'a> {
    envelope: &'a Envelope,
    client_id: &'a str,
    partition: u32,
    agenda: BTreeMap<Bucket, agenda::Delta>,
    lookup: BTreeMap<String, lookup::Delta>,
    lead: lead::Delta,
    outcomes: BTreeMap<i64, outcome::Delta>,
}

impl<'a> ContributionBuilder<'a> {
    pub(super) fn new(event: &'a Event, place: RecordPosition) -> Self {
        Self {
            envelope: &event.envelope,
            client_id: event.fact.subject(),
            partition: place.partition,
            agenda: BTreeMap::new(),
            lookup: BTreeMap::new(),
            lead: Vec::new(),
            outcomes: BTreeMap::new(),
        }
    }

    /// Forgets an appointment: its entries are removed and its counts stay. Its sample stays as long as the row can
    /// identify it, because an erasure has to find it.
    pub(super) fn release(&mut self, client: &mut Client, id: &str) -> Option<Appointment> {
        let forgotten = client.appointments.remove(id).map(|forgotten| *forgotten);
        client.retain_day(id, forgotten.as_ref());
        let before = Footprint::of(forgotten.as_ref());
        client.left_samples.extend(before.sample.as_ref().map(|(day, _)| (*day, outcome::hash(self.client_id, id))));
        while client.left_samples.len() > SETTLED_DAYS_MAX
            && let Some((day, visit)) = client.left_samples.pop_first()
        {
            self.forget(day, visit);
        }
        if before.history.missed > 0 {
            let start = forgotten.as_ref().and_then(|forgotten| forgotten.start.as_ref());
            client.forgotten_missed_ms = client.forgotten_missed_ms.max(start.map(|start| start.at_ms));
        }
        self.entries(id, &before, &Footprint::default());
        forgotten
    }

    /// Removes the samples of a client's visits when the client is erased.
    pub(super) fn forget_samples(&mut self, client: &Client) {
        client.left_samples.iter().for_each(|(day, visit)| self.forget(*day, *visit));
    }

    fn forget(&mut self, day: i64, visit: u64) {
        self.outcomes.entry(day).or_default().push(outcome::OutcomeChange::Forget { visit });
    }

    fn sample(&mut self, id: &str, before: Option<&(i64, Sample)>, after: Option<(i64, Sample)>) {
        if before == after.as_ref() {
            return;
        }
        let visit = outcome::hash(self.client_id, id);
        if let Some((day, sample)) = before {
            let (bucket, missed) = (sample.snapshot.lead_bucket(), sample.missed);
            let taken = outcome::OutcomeChange::Take { visit, bucket, missed };
            self.outcomes.entry(*day).or_default().push(taken);
        }
        if let Some((day, sample)) = after {
            self.outcomes.entry(day).or_default().push(outcome::OutcomeChange::Put { visit, sample });
        }
    }

    fn entries(&mut self, id: &str, before: &Footprint, after: &Footprint) {
        if before.agenda_at_ms != after.agenda_at_ms {
            before.agenda_at_ms.into_iter().for_each(|at| self.agenda(Bucket::starts(at, self.partition), id, -1));
            after.agenda_at_ms.into_iter().for_each(|at| self.agenda(Bucket::starts(at, self.partition), id, 1));
        }
        let (forgotten, come) =
            (&before.requested_at_ms - &after.requested_at_ms, &after.requested_at_ms - &before.requested_at_ms);
        forgotten.into_iter().for_each(|at| self.agenda(Bucket::requests(at, self.partition), id, -1));
        come.into_iter().for_each(|at| self.agenda(Bucket::requests(at, self.partition), id, 1));
        if before.claim != after.claim {
            let client_id = self.client_id.to_owned();
            let delta = match after.claim {
                Some(claim) => lookup::Delta::Claim { client_id, claim },
                None => lookup::Delta::Release { client_id },
            };
            self.lookup.insert(id.to_owned(), delta);
        }
    }

    fn agenda(&mut self, bucket: Bucket, entry: &str, times: i32) {
        self.agenda.entry(bucket).or_default().push((entry.to_owned(), times));
    }

    /// The changes from `before` to the present appointment, including the client's own counts.
    pub(super) fn difference(&mut self, client: &mut Client, id: &str, before: &Footprint) {
        let after = Footprint::of(client.appointments.get(id).map(Box::as_ref));
        let days = [before.resolved, after.resolved].into_iter().flatten().map(|resolved| resolved.day).collect();
        let days_before = client.outcomes(&days, id, before.resolved);
        let days_after = client.outcomes(&days, id, after.resolved);
        client.history.replace(before.history, after.history);
        self.outcomes(client, &days_before, &days_after);
        self.entries(id, before, &after);
        self.sample(id, before.sample.as_ref(), after.sample);
    }

    /// The changes between two lists of daily outcomes.
    fn outcomes(&mut self, client: &mut Client, before: &Days, after: &Days) {
        let forgotten = before.iter().filter(|(day, outcome)| after.get(day) != Some(outcome)).map(|(_, o)| (o, -1));
        let come = after.iter().filter(|(day, outcome)| before.get(day) != Some(outcome)).map(|(_, o)| (o, 1));
        for ((bucket, missed), sign) in forgotten.chain(come) {
            self.lead.push(LeadChange { bucket: *bucket, missed: *missed, sign });
            if let Some(day) = client.days.get_mut(usize::from(*bucket)) {
                day.count(*missed, i64::from(sign));
            }
        }
    }

    pub(super) fn finish(self) -> Vec<Contribution> {
        let tenant = &self.envelope.tenant;
        let agenda = self.agenda.into_iter().map(|(bucket, delta)| {
            let key = agenda::row_key(View::Agenda, bucket, tenant, self.client_id);
            Contribution::new(key, Delta::Agenda(delta))
        });
        let lookup = self
            .lookup
            .into_iter()
            .map(|(id, delta)| Contribution::new(lookup::row_key(tenant, &id), Delta::Lookup(delta)));
        let lead = (!self.lead.is_empty()).then(|| Contribution::new(lead::row_key(tenant), Delta::Lead(self.lead)));
        let outcomes = self
            .outcomes
            .into_iter()
            .map(|(day, delta)| Contribution::new(outcome::row_key(tenant, day), Delta::Outcome(delta)));
        agenda.chain(lookup).chain(lead).chain(outcomes).collect()
    }
}

impl Client {
    /// Remembers how the day of a forgotten appointment counts.
    fn retain_day(&mut self, id: &str, forgotten: Option<&Appointment>) {
        let resolved = forgotten.and_then(Appointment::resolved);
        let days = resolved.iter().map(|resolved| resolved.day).collect();
        let outcomes = self.outcomes(&days, id, resolved);
        self.settled_days.extend(outcomes);
        while self.settled_days.len() > SETTLED_DAYS_MAX {
            self.settled_days.pop_first();
        }
    }

    /// The outcomes of those `days` that have a known one, where `own` replaces the appointment `id`: attended if any
    /// visit was, with the lead of the first such visit by id; remembered days come before all of them.
    fn outcomes(&self, days: &BTreeSet<i64>, id: &str, own: Option<Resolved>) -> Days {
        let others = self.visits().filter(|(other, _)| *other != id).filter_map(|(other, visit)| {
            visit.resolved_day().filter(|day| days.contains(day))?;
            Some((other, visit.resolved()?))
        });
        let visits = others
            .chain(own.map(|own| (id, own)))
            .map(|(id, Resolved { day, missed, bucket })| (day, (missed, id, bucket)));
        let resolved_as = days.iter().filter_map(|day| self.settled_days.get_key_value(day));
        let resolved_as = resolved_as.map(|(day, (bucket, missed))| (*day, (*missed, "", *bucket)));
        let mut firsts = BTreeMap::new();
        for (day, visit) in resolved_as.chain(visits) {
            let first = firsts.entry(day).or_insert(visit);
            *first = visit.min(*first);
        }
        firsts.into_iter().map(|(day, (missed, _, bucket))| (day, (bucket, missed))).collect()
    }
}

impl ClientHistory {
    fn replace(&mut self, before: Self, after: Self) {
        self.attended += after.attended - before.attended;
        self.missed += after.missed - before.missed;
        self.cancelled += after.cancelled - before.cancelled;
        self.late_cancelled += after.late_cancelled - before.late_cancelled;
        self.rescheduled += after.rescheduled - before.rescheduled;
    }
}
