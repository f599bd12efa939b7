//! Two counters: the tenant's by lead, and the client's own.
//!
//! ```text
//! log-odds = logit(rate of the visit's lead bucket) + w · ln((O + k)/(E + k))
//! ```
//!
//! `O` is how many days the client missed, `E` how many a client with their leads would have missed at the tenant's
//! rates, `k` how much of both every client is credited with, so that one missed visit does not dominate. Only
//! outcomes that have arrived count: a past visit without a reported outcome is unknown, not kept.
//!
//! A bucket's rate is smoothed towards the tenant's, and the tenant's towards [`Config::prior_rate`], which alone
//! determines the rate of a tenant without outcomes. Rates are read from the rows at each score, so they need no other
//! recalibration: an additional one made scores of later bookings worse.

use super::{Config, VisitEvidence};
use crate::score::{Reason, ReasonCode, logit};
use crate::view::client::Client;
use crate::view::client::snapshot::Snapshot;
use crate::view::lead::{self, Lead, Outcomes};

/// Why a visit has its score; the effects add up to its log-odds.
pub(super) fn reasons(evidence: &VisitEvidence<'_>, rates: &Rates, config: &Config) -> Vec<Reason> {
    let reasons = [base(rates), lead_time(rates, evidence.lead_days), record(rates, evidence.client, config)];
    reasons.into_iter().flatten().collect()
}

/// Log-odds of a visit by what was known when it was placed, and by the current rates.
pub fn log_odds(visit: &Snapshot, rates: &Rates, config: &Config) -> f64 {
    let record = super::model::AttendanceRecord::of(visit, &rates.buckets, config.prior_no_shows);
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
    /// The rates according to the outcomes known so far.
    pub fn of(lead: &Lead, config: &Config) -> Self {
        let tenant = smoothed(lead.total(), config.prior_rate, config.prior_rate_visits);
        Self { tenant, buckets: lead.buckets.map(|outcomes| smoothed(outcomes, tenant, config.prior_visits)) }
    }

    fn bucket(&self, lead_days: i32) -> f64 {
        self.buckets.get(usize::from(lead::bucket(lead_days))).copied().unwrap_or(self.tenant)
    }
}

/// The rate of the outcomes, with `visits` at the rate `prior` added to them.
fn smoothed(outcomes: Outcomes, prior: f64, visits: f64) -> f64 {
    // Partials that are read during a correction may count below 0.
    let (missed, attended) = (outcomes.missed.max(0) as f64, outcomes.attended.max(0) as f64);
    (missed + prior * visits) / (missed + attended + visits)
}

fn base(rates: &Rates) -> Option<Reason> {
    let text = format!("{:.1} % of all visits here are missed.", rates.tenant * 100.0);
    Some(Reason::new(ReasonCode::BaseRate, logit(rates.tenant), text))
}

fn lead_time(rates: &Rates, lead_days: i32) -> Option<Reason> {
    let rate = rates.bucket(lead_days);
    let effect = logit(rate) - logit(rates.tenant);
    let percent = rate * 100.0;
    Some(match lead_days {
        ..=0 => {
            let text = format!("Booked for the same day; {percent:.1} % of such visits are missed.");
            Reason::new(ReasonCode::SameDayBooking, effect, text)
        }
        1 => Reason::new(
            ReasonCode::LeadTime,
            effect,
            format!("Booked a day ahead; {percent:.1} % of such visits are missed."),
        ),
        days => {
            let text = format!("Booked {days} days ahead; {percent:.1} % of such visits are missed.");
            Reason::new(ReasonCode::LeadTime, effect, text)
        }
    })
}

/// The client's own record, compared with what the tenant's rates predict for their leads.
fn record(rates: &Rates, client: Option<&Client>, config: &Config) -> Option<Reason> {
    let days = client.map(|client| client.days).unwrap_or_default();
    let visits: i64 = days.iter().map(|outcomes| outcomes.visits().max(0)).sum();
    if visits == 0 {
        return Some(Reason::new(ReasonCode::NewClient, 0.0, "No visit of the client has a known outcome yet."));
    }
    let observed = days.iter().map(|outcomes| outcomes.missed.max(0)).sum::<i64>();
    let expected: f64 = days.iter().zip(rates.buckets).map(|(o, rate)| o.visits().max(0) as f64 * rate).sum();
    let effect = config.weight * ((observed as f64 + config.prior_no_shows) / (expected + config.prior_no_shows)).ln();
    let code = if effect > 0.0 { ReasonCode::PastNoShows } else { ReasonCode::PastAttendance };
    let text = format!("Missed {observed} of {visits} days with a visit; {expected:.1} would be usual.");
    Some(Reason::new(code, effect, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::no_show::{VisitScore, score};
    use crate::score::{ReasonCode, logit};
    use crate::score::{RecommendedAction, RiskLevel};
    use crate::view::lead::{self, Outcomes};
    use proptest::prelude::*;

    fn outcomes(attended: i64, missed: i64) -> Outcomes {
        Outcomes { attended, missed }
    }

    /// A tenant with 5 % of same-day visits missed, 30 % of those a week ahead, and 20 % of all.
    fn tenant() -> Lead {
        let mut lead = Lead::default();
        lead.buckets[0] = outcomes(3_800, 200);
        lead.buckets[5] = outcomes(4_200, 1_800);
        lead
    }

    fn client(days: &[(usize, Outcomes)]) -> Client {
        let mut client = Client::default();
        days.iter().for_each(|(bucket, outcomes)| client.days[*bucket] = *outcomes);
        client
    }

    fn of(lead: &Lead, client: Option<&Client>, lead_days: i32) -> VisitScore {
        score(&VisitEvidence { client, lead, lead_days }, &Config::default())
    }

    fn effect(score: &VisitScore, code: &ReasonCode) -> Option<f64> {
        score.reasons.iter().find(|reason| reason.code == *code).map(|reason| reason.effect)
    }

    #[test]
    fn the_lead_speaks_for_a_new_client() {
        let tenant = tenant();
        // Different from the tenant's own rate, at which medium begins otherwise.
        let config = Config { medium_at: 0.9, ..Config::default() };
        for (lead_days, rate, code, level) in [
            (-1, 0.05, ReasonCode::SameDayBooking, RiskLevel::Low),
            (0, 0.05, ReasonCode::SameDayBooking, RiskLevel::Low),
            (7, 0.3, ReasonCode::LeadTime, RiskLevel::Medium),
            // Never seen: the tenant's own rate.
            (2, 0.2, ReasonCode::LeadTime, RiskLevel::Medium),
        ] {
            let got = score(&VisitEvidence { client: None, lead: &tenant, lead_days }, &config);
            assert!((got.score - rate).abs() < 1e-3, "{lead_days}: {}", got.score);
            assert!(effect(&got, &code).is_some(), "{lead_days}: {:?}", got.reasons);
            assert_eq!(effect(&got, &ReasonCode::NewClient), Some(0.0));
            assert_eq!(got.level, level, "{lead_days}");
        }
    }

    #[test]
    fn a_record_is_judged_by_its_leads() {
        let tenant = tenant();
        let missed_week = client(&[(5, outcomes(0, 1))]);
        let missed_same_day = client(&[(0, outcomes(0, 1))]);
        let kept = client(&[(5, outcomes(10, 0))]);
        let usual = client(&[(0, outcomes(19, 1))]);
        let effect = |client, code| effect(&of(&tenant, Some(client), 7), code).unwrap();
        let (week, same_day) =
            (effect(&missed_week, &ReasonCode::PastNoShows), effect(&missed_same_day, &ReasonCode::PastNoShows));
        assert!(week > 0.2 && same_day > week, "a missed same-day visit is the greater surprise: {week} {same_day}");
        assert!(effect(&kept, &ReasonCode::PastAttendance) < -0.5);
        assert!(
            effect(&usual, &ReasonCode::PastAttendance).abs() < 0.01,
            "1 of 20 same-day visits is what the rates expect"
        );
    }

    #[test]
    fn levels_begin_at_multiples_of_the_tenants_rate() {
        let tenant = tenant();
        let worst = client(&[(5, outcomes(0, 3))]);
        let got = of(&tenant, Some(&worst), 7);
        let times = got.score / Rates::of(&tenant, &Config::default()).tenant;
        for (medium_at, high_at, level, action) in [
            (1.0, times, RiskLevel::High, RecommendedAction::Call),
            (times, times.next_up(), RiskLevel::Medium, RecommendedAction::Remind),
            (times.next_up(), times.next_up(), RiskLevel::Low, RecommendedAction::Remind),
        ] {
            let config = Config { medium_at, high_at, ..Config::default() };
            let got = score(&VisitEvidence { client: Some(&worst), lead: &tenant, lead_days: 7 }, &config);
            assert_eq!((got.level, got.recommended_action), (level, action), "{medium_at} {high_at}");
        }
        assert_eq!(got.level, RiskLevel::High, "three of three missed");
    }

    #[test]
    fn a_tenant_without_outcomes_has_the_prior_rate() {
        let config = Config::default();
        let got = of(&Lead::default(), None, 14);
        assert!((got.score - config.prior_rate).abs() < 1e-12, "{}", got.score);
        let mut one = Lead::default();
        one.buckets[7] = outcomes(0, 1);
        let rate = (1.0 + config.prior_rate * config.prior_rate_visits) / (1.0 + config.prior_rate_visits);
        assert!((Rates::of(&one, &config).tenant - rate).abs() < 1e-12, "one outcome moves it a little");
    }

    #[test]
    fn unusable_settings_are_named() {
        let valid = Config::default();
        assert_eq!(valid.validate(), Ok(()));
        for (config, field) in [
            (Config { weight: -1.0, ..valid.clone() }, "weight"),
            (Config { prior_no_shows: 0.0, ..valid.clone() }, "prior_no_shows"),
            (Config { prior_visits: f64::NAN, ..valid.clone() }, "prior_visits"),
            (Config { prior_rate: 0.0, ..valid.clone() }, "prior_rate"),
            (Config { prior_rate: 1.0, ..valid.clone() }, "prior_rate"),
            (Config { prior_rate_visits: -1.0, ..valid.clone() }, "prior_rate_visits"),
            (Config { medium_at: 0.0, ..valid.clone() }, "medium_at"),
            (Config { high_at: 0.5, ..valid }, "high_at"),
        ] {
            assert_eq!(config.validate().unwrap_err().field, field);
        }
        assert!(serde_json::from_str::<Config>(r#"{"actions": {"high": "deposit"}}"#).is_ok());
        assert!(serde_json::from_str::<Config>(r#"{"wait": 1}"#).is_err());
    }

    fn any_outcomes() -> impl Strategy<Value = Outcomes> {
        (-2_i64..50, -2_i64..50).prop_map(|(attended, missed)| outcomes(attended, missed))
    }

    fn any_days() -> impl Strategy<Value = [Outcomes; lead::BUCKETS.len()]> {
        prop::array::uniform12(any_outcomes())
    }

    proptest! {
        #[test]
        fn effects_add_up_to_the_log_odds(buckets in any_days(), days in any_days(), lead_days in -3_i32..200) {
            let client = Client { days, ..Client::default() };
            let got = of(&Lead { buckets }, Some(&client), lead_days);
            prop_assert!(got.score > 0.0 && got.score < 1.0, "{}", got.score);
            let sum: f64 = got.reasons.iter().map(|reason| reason.effect).sum();
            prop_assert!((sum - logit(got.score)).abs() < 1e-9);
        }

        #[test]
        // If nearly all days were missed, the ratio of observed to expected hardly changes with one more missed day: it
        // may even fall a little, because that day was also expected. It is above the ratio with a kept day in any
        // case.
        fn a_kept_day_never_raises_the_risk_and_a_missed_one_is_worse(days in any_days(), lead_days in 0_i32..200, at in 0_usize..12) {
            let mut client = Client { days: days.map(|o| outcomes(o.attended.max(0), o.missed.max(0))), ..Client::default() };
            let tenant = tenant();
            let before = of(&tenant, Some(&client), lead_days).score;
            client.days[at].missed += 1;
            let missed = of(&tenant, Some(&client), lead_days).score;
            client.days[at].missed -= 1;
            client.days[at].attended += 1;
            let kept = of(&tenant, Some(&client), lead_days).score;
            prop_assert!(kept <= before && kept < missed, "{kept} {before} {missed}");
        }
    }
}
