//! Compares two policies over one history: which decisions would change.

use super::Progress;
use super::logins::score;
use crate::source::SourceData;
use foretell_domain::score::LoginDecision;
use foretell_domain::score::login::{LoginPolicy, LoginScore};
use foretell_domain::view::materialized::Materialized;
use foretell_domain::view::user::LoginFold;
use foretell_domain::view::{Limits, RecordPosition};
use foretell_events::Fact;
use foretell_events::login::LoginFact;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// A login with a different decision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Changed {
    /// The event.
    pub event_id: String,
    /// The account.
    pub user_id: String,
    /// The time, in milliseconds since the epoch.
    pub time_ms: i64,
    /// With the policy in use.
    pub before: Judged,
    /// With the tested policy.
    pub after: Judged,
}

/// The result of a policy for a login.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// The decision.
    pub decision: LoginDecision,
    /// The score; none without history.
    pub score: Option<f64>,
    /// The codes of its reasons.
    pub reasons: Vec<String>,
}

impl Judged {
    fn of(score: &LoginScore) -> Self {
        let reasons = score.reasons.iter().map(|reason| reason.code.name().to_owned()).collect();
        Self { decision: score.decision, score: score.score, reasons }
    }
}

/// The result of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PolicyComparison {
    /// Logins that were judged with both policies.
    pub logins: u64,
    /// Logins with different decisions.
    pub changed: u64,
    /// How often each pair of decisions occurred.
    pub changes: BTreeMap<String, u64>,
    /// How often a signal or rule in shadow mode would have been a reason in the tested policy.
    pub shadow: BTreeMap<String, u64>,
    /// Logins for which a rule of the tested policy could not be evaluated.
    pub rules_failed: u64,
}

impl fmt::Display for PolicyComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { logins, changed, .. } = self;
        let share = if *logins == 0 { 0.0 } else { 100.0 * *changed as f64 / *logins as f64 };
        writeln!(f, "logins {logins}, decided differently {changed} ({share:.2} %)")?;
        for (change, count) in &self.changes {
            writeln!(f, "{count:>9}  {change}")?;
        }
        for (code, count) in &self.shadow {
            writeln!(f, "{count:>9}  {code} in shadow mode")?;
        }
        if self.rules_failed > 0 {
            writeln!(f, "{:>9}  with a rule that could not be evaluated", self.rules_failed)?;
        }
        Ok(())
    }
}

/// The policies of a comparison.
#[derive(Debug, Clone, Copy)]
pub struct PolicyChange<'a> {
    /// The one that is replaced.
    pub before: &'a LoginPolicy,
    /// The one that replaces it.
    pub after: &'a LoginPolicy,
}

/// Replays a history and judges each login with both policies, just before it is folded.
///
/// `changed` receives each login with a different decision, `progress` the completed and the total events. Errors are
/// those of `changed`.
pub fn policies<E>(
    loaded: &SourceData,
    change: PolicyChange<'_>,
    limits: &Limits,
    changed: &mut dyn FnMut(Changed) -> Result<(), E>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PolicyComparison, E> {
    let mut rows = Materialized::new(LoginFold { limits: limits.clone() });
    let mut compared = PolicyComparison::default();
    let mut progress = Progress { report: progress, total: loaded.events.len() };
    for (offset, sourced) in loaded.events.iter().enumerate() {
        let event = &sourced.event;
        if let Fact::Login(LoginFact::Attempted(login)) = &event.fact {
            let by = |policy| score(&rows, &event.envelope, login, policy);
            let (old, new) = (by(change.before), by(change.after));
            compared.take(&old, &new);
            if old.decision != new.decision {
                let (event_id, user_id) = (event.envelope.id.clone(), login.user_id.clone());
                let (before, after) = (Judged::of(&old), Judged::of(&new));
                changed(Changed { event_id, user_id, time_ms: event.envelope.time_ms, before, after })?;
            }
        }
        rows.take(event, RecordPosition { partition: 0, offset: offset as i64 });
        progress.done(offset + 1);
    }
    Ok(compared)
}

impl PolicyComparison {
    fn take(&mut self, old: &LoginScore, new: &LoginScore) {
        self.logins += 1;
        self.rules_failed += u64::from(new.is_rule_failed);
        for reason in &new.shadow {
            *self.shadow.entry(reason.code.name().to_owned()).or_default() += 1;
        }
        if old.decision != new.decision {
            self.changed += 1;
            let change = format!("{} became {}", old.decision.name(), new.decision.name());
            *self.changes.entry(change).or_default() += 1;
        }
    }
}
