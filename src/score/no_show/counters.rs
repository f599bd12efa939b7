//! Two counters: the tenant's by lead, and the client's own.
//!
//! ```text
//! log-odds = logit(rate of the visit's lead bucket) + w · ln((O + k)/(E + k))
//! ```
//!
//! `O` is how many days the client missed, `E` how many a client with their leads would have missed at the tenant's
//! rates, `k` how much of both everybody is credited with, so that one missed visit does not brand a client. Only
//! outcomes that have arrived count: a past visit that nobody reported on is unknown, not kept.
//!
//! A bucket's rate is smoothed towards the tenant's, and the tenant's towards [`Config::prior_rate`], which alone
//! speaks for a tenant without outcomes. Rates are read from the rows at each score, so they need no other
//! recalibration: one on top of them made scores of later bookings worse.

use super::{Config, Evidence};
use crate::score::{Code, Reason, logit};
use crate::view::client::Client;
use crate::view::client::snapshot::Snapshot;
use crate::view::lead::{self, Lead, Outcomes};

/// Why a visit has the score that it has; the effects add up to its log-odds.
pub(super) fn reasons(evidence: &Evidence<'_>, rates: &Rates, config: &Config) -> Vec<Reason> {
    let reasons = [base(rates), lead_time(rates, evidence.lead_days), record(rates, evidence.client, config)];
    reasons.into_iter().flatten().collect()
}

/// Log-odds of a visit by what was known when it was placed, and by the rates as they are now.
pub fn log_odds(visit: &Snapshot, rates: &Rates, config: &Config) -> f64 {
    let record = super::model::Record::of(visit, &rates.buckets, config.prior_no_shows);
    let own = if record.visits == 0 { 0.0 } else { config.weight * record.ratio };
    logit(rates.bucket(visit.lead_days.into())) + own
}

/// A tenant's smoothed rates of no-shows, each between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Over all visits.
    pub tenant: f64,
    /// By lead bucket.
    pub buckets: [f64; lead::BUCKETS.len()],
}

impl Rates {
    /// The rates that the outcomes known so far give.
    pub fn of(lead: &Lead, config: &Config) -> Self {
        let tenant = smoothed(lead.total(), config.prior_rate, config.prior_rate_visits);
        Self { tenant, buckets: lead.buckets.map(|outcomes| smoothed(outcomes, tenant, config.prior_visits)) }
    }

    fn bucket(&self, lead_days: i32) -> f64 {
        self.buckets.get(usize::from(lead::bucket(lead_days))).copied().unwrap_or(self.tenant)
    }
}

/// The rate of outcomes that are credited with `visits` at the rate `prior`.
fn smoothed(outcomes: Outcomes, prior: f64, visits: f64) -> f64 {
    // Partials that are read while a correction is under way may count below nothing.
    let (missed, attended) = (outcomes.missed.max(0) as f64, outcomes.attended.max(0) as f64);
    (missed + prior * visits) / (missed + attended + visits)
}

fn base(rates: &Rates) -> Option<Reason> {
    let text = format!("Of all visits here {:.1} % are missed.", rates.tenant * 100.0);
    Some(Reason::new(Code::BaseRate, logit(rates.tenant), text))
}

fn lead_time(rates: &Rates, lead_days: i32) -> Option<Reason> {
    let rate = rates.bucket(lead_days);
    let effect = logit(rate) - logit(rates.tenant);
    let percent = rate * 100.0;
    Some(match lead_days {
        ..=0 => {
            let text = format!("Booked for the same day; of such visits {percent:.1} % are missed.");
            Reason::new(Code::SameDayBooking, effect, text)
        }
        1 => Reason::new(
            Code::LeadTime,
            effect,
            format!("Booked a day ahead; of such visits {percent:.1} % are missed."),
        ),
        days => {
            let text = format!("Booked {days} days ahead; of such visits {percent:.1} % are missed.");
            Reason::new(Code::LeadTime, effect, text)
        }
    })
}

/// The client's own record, against what the tenant's rates would expect of their leads.
fn record(rates: &Rates, client: Option<&Client>, config: &Config) -> Option<Reason> {
    let days = client.map(|client| client.days).unwrap_or_default();
    let visits: i64 = days.iter().map(|outcomes| outcomes.visits().max(0)).sum();
    if visits == 0 {
        return Some(Reason::new(Code::NewClient, 0.0, "No visit of the client has a known outcome yet."));
    }
    let observed = days.iter().map(|outcomes| outcomes.missed.max(0)).sum::<i64>();
    let expected: f64 = days.iter().zip(rates.buckets).map(|(o, rate)| o.visits().max(0) as f64 * rate).sum();
    let effect = config.weight * ((observed as f64 + config.prior_no_shows) / (expected + config.prior_no_shows)).ln();
    let code = if effect > 0.0 { Code::PastNoShows } else { Code::PastAttendance };
    let text = format!("Missed {observed} of {visits} days with a visit; {expected:.1} would be usual.");
    Some(Reason::new(code, effect, text))
}
