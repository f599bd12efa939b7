//! Logins: each is scored just before it is folded, including failed ones.

use super::{EvaluationSummary, LoginOptions, Measure, Progress};
use crate::source::{Author, SourceData, SourceLabel};
use foretell_domain::score::login::{self, Features, LoginEvidence};
use foretell_domain::score::metrics::Case;
use foretell_domain::view::RecordPosition;
use foretell_domain::view::materialized::Materialized;
use foretell_domain::view::user::{self, LoginFold};
use foretell_events::codec::completed;
use foretell_events::login::{Login, LoginFact};
use foretell_events::{Envelope, Fact};
use serde::Serialize;
use std::io::{self, Write};

/// A line of the output.
#[derive(Serialize)]
struct Line<'a> {
    event_id: &'a str,
    likelihood_ratio: Option<f64>,
    score: Option<f64>,
    decision: &'static str,
}

/// Replays a file of logins. `out` receives a line of JSON for each one, `progress` the completed and the total events.
///
/// If the file labels attack addresses and account takeovers, the summary measures the scores against both. A score is
/// a transformed likelihood ratio, not the share of attacks among such logins; the ranking is therefore meaningful
/// directly, the other measures only for a service with a base rate of one half.
///
/// Errors are those of `out`.
pub fn logins(
    loaded: &SourceData,
    options: &LoginOptions,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<EvaluationSummary> {
    let mut rows = Materialized::new(LoginFold { limits: options.limits.clone() });
    let mut summary = EvaluationSummary { rows: loaded.rows, skipped: loaded.skipped, ..EvaluationSummary::default() };
    let mut labelled = Labelled::default();
    let mut progress = Progress { report: progress, total: loaded.events.len() };
    for (offset, sourced) in loaded.events.iter().enumerate() {
        let event = &completed(sourced.event.clone());
        if let Fact::Login(LoginFact::Attempted(login)) = &event.fact {
            let score = score(&rows, &event.envelope, login, &options.score);
            write(out, &event.envelope.id, &score)?;
            summary.lines += 1;
            summary.scored += u64::from(score.score.is_some());
            summary.answered(score.decision.name());
            let is_counted = options.train_until_ms.is_none_or(|until| event.envelope.time_ms > until);
            labelled.take(score.score.filter(|_| is_counted), sourced.label);
        }
        rows.take(event, RecordPosition { partition: 0, offset: offset as i64 });
        progress.done(offset + 1);
    }
    summary.measures = labelled.measures();
    Ok(summary)
}

/// The score of a login, with the rows before it.
pub(crate) fn score(
    rows: &Materialized<LoginFold>,
    envelope: &Envelope,
    login: &Login,
    policy: &login::LoginPolicy,
) -> login::LoginScore {
    let Envelope { tenant, time_ms, .. } = envelope;
    let features = Features::of(rows, tenant, &login.attempt);
    let user = rows.owner(&user::row_key(tenant, &login.user_id));
    login::score(&LoginEvidence::of(user, &features, &login.attempt, *time_ms), policy)
}

fn write(out: &mut dyn Write, event_id: &str, score: &login::LoginScore) -> io::Result<()> {
    let login::LoginScore { likelihood_ratio, score, decision, .. } = *score;
    let line = Line { event_id, likelihood_ratio, score, decision: decision.name() };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

/// Scored logins by their labels.
#[derive(Default)]
struct Labelled {
    attack_ip: Vec<Case>,
    account_takeover: Vec<Case>,
    simulated: Vec<Case>,
}

impl Labelled {
    fn take(&mut self, score: Option<f64>, label: Option<SourceLabel>) {
        match (score, label) {
            (Some(score), Some(SourceLabel::Row { attack_ip, account_takeover })) => {
                self.attack_ip.push(Case { score, positive: attack_ip });
                self.account_takeover.push(Case { score, positive: account_takeover });
            }
            (Some(score), Some(SourceLabel::Simulated(author))) => {
                self.simulated.push(Case { score, positive: author != Author::Legitimate });
            }
            _ => {}
        }
    }

    fn measures(&self) -> Vec<Measure> {
        let measures = [
            ("attack address", &self.attack_ip),
            ("account takeover", &self.account_takeover),
            ("simulated attack", &self.simulated),
        ];
        measures.into_iter().filter(|(_, c)| !c.is_empty()).map(|(name, cases)| Measure::of(name, cases)).collect()
    }
}
