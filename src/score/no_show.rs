//! How likely a visit is to be missed: two counters, the tenant's by lead and the client's own.
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
//! speaks for a tenant without outcomes. Rates are read from the rows at each score, so outcomes recalibrate the
//! model as they arrive.
//!
//! What is absent on purpose: attributes of people (age, sex, place) and reminders sent, which are treatments. The
//! score decides whom to remind and to call; it must never decide whom to turn away.

use super::{Action, Code, InvalidConfig, Level, Model, OnUnavailable, Reason, logistic, logit};
use crate::view::client::{Client, History};
use crate::view::lead::{self, Lead, Outcomes};
use serde::{Deserialize, Serialize};

/// Weights, priors and thresholds of no-show scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `w`: how much the client's own record counts; 0 leaves it out.
    pub weight: f64,
    /// `k`: missed days, observed and expected, that everybody is credited with.
    pub prior_no_shows: f64,
    /// Visits at the tenant's rate that each lead bucket is credited with.
    pub prior_visits: f64,
    /// The rate, between 0 and 1, of a tenant without outcomes.
    pub prior_rate: f64,
    /// Visits at `prior_rate` that each tenant is credited with.
    pub prior_rate_visits: f64,
    /// Level medium from this many times the tenant's rate.
    pub medium_at: f64,
    /// Level high from this many times the tenant's rate; not below `medium_at`.
    pub high_at: f64,
    /// What is answered when the client's row cannot be read in time: an error, or a score by the rates of everybody.
    pub on_unavailable: OnUnavailable,
    /// What is recommended at each level.
    pub actions: Actions,
}

/// What is recommended at each level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Actions {
    /// At level low.
    pub low: Action,
    /// At level medium.
    pub medium: Action,
    /// At level high.
    pub high: Action,
}

impl Default for Actions {
    fn default() -> Self {
        Self { low: Action::Remind, medium: Action::Remind, high: Action::Call }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            weight: 1.0,
            prior_no_shows: 1.5,
            prior_visits: 20.0,
            prior_rate: 0.1,
            prior_rate_visits: 20.0,
            medium_at: 1.0,
            high_at: 2.0,
            on_unavailable: OnUnavailable::Challenge,
            actions: Actions::default(),
        }
    }
}

impl Config {
    /// Whether scores can be computed with it.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        let weight = self.weight.is_finite() && self.weight >= 0.0;
        InvalidConfig::unless(weight, "weight", "a finite number from 0")?;
        InvalidConfig::unless_positive(self.prior_no_shows, "prior_no_shows")?;
        InvalidConfig::unless_positive(self.prior_visits, "prior_visits")?;
        let is_rate = self.prior_rate > 0.0 && self.prior_rate < 1.0;
        InvalidConfig::unless(is_rate, "prior_rate", "between 0 and 1")?;
        InvalidConfig::unless_positive(self.prior_rate_visits, "prior_rate_visits")?;
        InvalidConfig::unless_positive(self.medium_at, "medium_at")?;
        let ordered = self.high_at.is_finite() && self.high_at >= self.medium_at;
        InvalidConfig::unless(ordered, "high_at", "a finite number from medium_at")
    }

    /// What computes the scores.
    pub const fn model(&self) -> Model {
        Model { id: "no-show-two-counters", version: "1" }
    }
}

/// What a visit is scored by.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The client's row; none for a client never seen.
    pub client: Option<&'a Client>,
    /// The tenant's outcomes, merged over their source partitions.
    pub lead: &'a Lead,
    /// Whole days from booking to visit, in the visit's zone; below 0 counts as 0.
    pub lead_days: i32,
}

/// A scored visit.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Probability of a no-show, between 0 and 1.
    pub score: f64,
    /// How risky it is, compared with the tenant's own rate; never unscored.
    pub level: Level,
    /// What to do about it.
    pub recommended_action: Action,
    /// Why; the effects add up to the log-odds of the score.
    pub reasons: Vec<Reason>,
    /// How the client kept their appointments.
    pub history: History,
}

/// Scores a visit.
pub fn score(evidence: &Evidence<'_>, config: &Config) -> Score {
    let rates = Rates::of(evidence.lead, config);
    let reasons = [base(&rates), lead_time(&rates, evidence.lead_days), record(&rates, evidence.client, config)];
    let reasons: Vec<_> = reasons.into_iter().flatten().collect();
    let score = logistic(reasons.iter().map(|reason| reason.effect).sum());
    let (level, recommended_action) = match score / rates.tenant {
        times if times >= config.high_at => (Level::High, config.actions.high),
        times if times >= config.medium_at => (Level::Medium, config.actions.medium),
        _ => (Level::Low, config.actions.low),
    };
    let history = evidence.client.map(|client| client.history).unwrap_or_default();
    Score { score, level, recommended_action, reasons, history }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outcomes(attended: i64, missed: i64) -> Outcomes {
        Outcomes { attended, missed }
    }

    /// A tenant of which 5 % of same-day visits and 30 % of those a week ahead are missed, 20 % of all.
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

    fn of(lead: &Lead, client: Option<&Client>, lead_days: i32) -> Score {
        score(&Evidence { client, lead, lead_days }, &Config::default())
    }

    fn effect(score: &Score, code: &Code) -> Option<f64> {
        score.reasons.iter().find(|reason| reason.code == *code).map(|reason| reason.effect)
    }

    #[test]
    fn the_lead_speaks_for_a_new_client() {
        let tenant = tenant();
        for (lead_days, rate, code, level) in [
            (-1, 0.05, Code::SameDayBooking, Level::Low),
            (0, 0.05, Code::SameDayBooking, Level::Low),
            (7, 0.3, Code::LeadTime, Level::Medium),
            // Never seen: the tenant's own rate, the very edge of medium.
            (2, 0.2, Code::LeadTime, Level::Medium),
        ] {
            let got = of(&tenant, None, lead_days);
            assert!((got.score - rate).abs() < 1e-3, "{lead_days}: {}", got.score);
            assert!(effect(&got, &code).is_some(), "{lead_days}: {:?}", got.reasons);
            assert_eq!(effect(&got, &Code::NewClient), Some(0.0));
            if lead_days != 2 {
                assert_eq!(got.level, level, "{lead_days}");
            }
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
        let (week, same_day) = (effect(&missed_week, &Code::PastNoShows), effect(&missed_same_day, &Code::PastNoShows));
        assert!(week > 0.2 && same_day > week, "a missed same-day visit is the greater surprise: {week} {same_day}");
        assert!(effect(&kept, &Code::PastAttendance) < -0.5);
        assert!(effect(&usual, &Code::PastAttendance).abs() < 0.01, "1 of 20 same-day visits is what the rates expect");
    }

    #[test]
    fn levels_begin_at_multiples_of_the_tenants_rate() {
        let tenant = tenant();
        let worst = client(&[(5, outcomes(0, 3))]);
        let got = of(&tenant, Some(&worst), 7);
        let times = got.score / Rates::of(&tenant, &Config::default()).tenant;
        for (medium_at, high_at, level, action) in [
            (1.0, times, Level::High, Action::Call),
            (times, times.next_up(), Level::Medium, Action::Remind),
            (times.next_up(), times.next_up(), Level::Low, Action::Remind),
        ] {
            let config = Config { medium_at, high_at, ..Config::default() };
            let got = score(&Evidence { client: Some(&worst), lead: &tenant, lead_days: 7 }, &config);
            assert_eq!((got.level, got.recommended_action), (level, action), "{medium_at} {high_at}");
        }
        assert_eq!(got.level, Level::High, "three of three missed");
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
        // A ratio of observed to expected has no more to say of one more missed day where nearly all days were
        // missed: it may even fall a little, because that day was also expected. It is above a kept one in any case.
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
