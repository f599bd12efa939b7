//! How good decisions were: compares decisions with their labels and outcomes, by reason and by decision.
//!
//! A label states what the login was: the person, or another one on their behalf, confirmed or reported it
//! (`foretell.login.confirmed`, `foretell.login.reported`; the latest counts). The outcome is known when a login names
//! the decision. Labels are read first, because they are few, and then decisions in any order: each is counted and
//! forgotten. The report is a pure function of its inputs.
//!
//! **Precision** of a reason is the share of fraud among the labelled decisions with this reason. It is only known for
//! labelled decisions, and challenged users respond more often than allowed ones, so the shares of different decisions
//! are about different people. Its bounds are those of Wilson's score interval at 95 %, which is also valid for few
//! labels.

use crate::decision::id::Id;
use crate::decision::record::FeedbackLabel;
use crate::score::metrics::wilson;
use foretell_events::catalog::DECISION;
use foretell_events::login::DecisionFeedback;
use foretell_events::record::Record;
use foretell_events::{Event, Fact};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Labels that are kept in memory; each takes some 40 bytes.
pub(crate) const LABELS_MAX: usize = 1_000_000;
/// Outcomes that are kept in memory; if there are more, none are counted.
pub const OUTCOMES_MAX: usize = 2_000_000;
/// Different reasons that are counted separately; further ones are counted together.
pub(crate) const NAMES_MAX: usize = 1_000;
/// A decision that an uncertain append wrote twice occurs again within this many decisions.
const REPEATED_WITHIN: usize = 20_000;
/// The name for reasons beyond the limit.
const OTHERS: &str = "(others)";

/// How good decisions about logins were.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DecisionReport {
    /// All of them.
    pub total: DecisionReportRow,
    /// By decision: `allow`, `challenge`, `deny`.
    pub by_decision: Vec<DecisionReportRow>,
    /// By reason, the most frequent first.
    pub by_reason: Vec<DecisionReportRow>,
    /// By the signals and rules in shadow mode, the most frequent first.
    pub by_shadow: Vec<DecisionReportRow>,
    /// Labels whose decision was not read: it is older, or of another tenant.
    pub unmatched: u64,
    /// Decisions about visits, which are only counted, because they are not labelled.
    pub visits: u64,
    /// Records that could not be read.
    pub unreadable: u64,
    /// Whether outcomes were counted: not if there were more than [`OUTCOMES_MAX`].
    pub outcomes: bool,
}

/// Decisions with a common property.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DecisionReportRow {
    /// The property.
    pub name: String,
    /// Decisions.
    pub given: u64,
    /// Those with a label.
    pub labelled: u64,
    /// Those labelled as fraud.
    pub fraud: u64,
    /// Those labelled as legitimate.
    pub legitimate: u64,
    /// `fraud / labelled`; none without labels.
    pub precision: Option<f64>,
    /// The bounds of the precision with a confidence of 95 %; none without labels.
    pub interval: Option<(f64, f64)>,
    /// Those after which a login succeeded.
    pub succeeded: u64,
    /// Those after which one failed.
    pub failed: u64,
    /// The mean effect of a reason, in log-odds.
    pub effect: Option<f64>,
}

/// There is more data than may be kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {LABELS_MAX} decisions have labels: use a later --since")]
pub struct TooManyLabels;

/// The counts so far.
#[derive(Debug, Default)]
pub struct DecisionTally {
    labels: HashMap<u128, FeedbackLabel>,
    /// Whether the login succeeded; none where there were too many.
    outcomes: Option<HashMap<u128, bool>>,
    matched: u64,
    total: Count,
    by_decision: BTreeMap<String, Count>,
    by_reason: BTreeMap<String, Count>,
    by_shadow: BTreeMap<String, Count>,
    recent: RecentDecisions,
    visits: u64,
    unreadable: u64,
}

/// The decisions that were counted last.
#[derive(Debug, Default)]
struct RecentDecisions {
    ids: HashSet<u128>,
    order: VecDeque<u128>,
}

impl RecentDecisions {
    /// Whether it was not in the set.
    fn insert(&mut self, id: u128) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REPEATED_WITHIN
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    given: u64,
    fraud: u64,
    legitimate: u64,
    succeeded: u64,
    failed: u64,
    effects: f64,
}

/// The label and the outcome of a decision.
#[derive(Debug, Clone, Copy)]
struct LabelAndOutcome {
    label: Option<FeedbackLabel>,
    succeeded: Option<bool>,
}

impl Count {
    fn add(&mut self, known: LabelAndOutcome, effect: f64) {
        self.given += 1;
        self.fraud += u64::from(known.label == Some(FeedbackLabel::Fraud));
        self.legitimate += u64::from(known.label == Some(FeedbackLabel::Legitimate));
        self.succeeded += u64::from(known.succeeded == Some(true));
        self.failed += u64::from(known.succeeded == Some(false));
        self.effects += effect;
    }

    fn row(self, name: String) -> DecisionReportRow {
        let Self { given, fraud, legitimate, succeeded, failed, .. } = self;
        let labelled = fraud + legitimate;
        let precision = (labelled > 0).then(|| fraud as f64 / labelled as f64);
        let interval = precision.map(|precision| wilson(precision, labelled as f64));
        DecisionReportRow {
            name,
            given,
            labelled,
            fraud,
            legitimate,
            precision,
            interval,
            succeeded,
            failed,
            effect: None,
        }
    }

    fn reason(self, name: String) -> DecisionReportRow {
        let effect = (self.given > 0).then(|| self.effects / self.given as f64);
        DecisionReportRow { effect, ..self.row(name) }
    }
}

/// The fields of a decision that are counted.
#[derive(Deserialize)]
struct DecisionFields {
    id: String,
    kind: String,
    #[serde(default)]
    decision: Option<String>,
    #[serde(default)]
    reasons: Vec<ReasonFields>,
    #[serde(default)]
    shadow: Vec<ReasonFields>,
}

/// A reason of a decision.
#[derive(Deserialize)]
struct ReasonFields {
    code: String,
    #[serde(default)]
    effect: f64,
}

impl DecisionTally {
    /// No counts.
    pub fn new() -> Self {
        Self { outcomes: Some(HashMap::new()), ..Self::default() }
    }

    /// Records a label or an outcome of a decision; all of these come before the decisions, in the order of the log.
    pub fn record_event(&mut self, event: &Event) -> Result<(), TooManyLabels> {
        let Fact::Login(fact) = &event.fact else { return Ok(()) };
        let Some((id, feedback)) = fact.feedback() else { return Ok(()) };
        let Some(id) = Id::parse(id) else { return Ok(()) };
        match feedback {
            DecisionFeedback::Legitimate => self.label(id, FeedbackLabel::Legitimate)?,
            DecisionFeedback::Fraud => self.label(id, FeedbackLabel::Fraud)?,
            DecisionFeedback::Succeeded => self.outcome(id, true),
            DecisionFeedback::Failed => self.outcome(id, false),
        }
        Ok(())
    }

    fn label(&mut self, id: Id, label: FeedbackLabel) -> Result<(), TooManyLabels> {
        self.labels.insert(id.as_u128(), label);
        if self.labels.len() > LABELS_MAX { Err(TooManyLabels) } else { Ok(()) }
    }

    /// A challenge that was passed after failed attempts is a success.
    fn outcome(&mut self, id: Id, succeeded: bool) {
        if let Some(outcomes) = &mut self.outcomes {
            *outcomes.entry(id.as_u128()).or_default() |= succeeded;
            if outcomes.len() > OUTCOMES_MAX {
                self.outcomes = None;
            }
        }
    }

    /// Counts a record of the topic of decisions.
    pub fn count(&mut self, record: &Record) {
        if record.header("ce_type") != Some(DECISION.name.as_bytes()) {
            self.unreadable += 1;
            return;
        }
        let decision = serde_json::from_slice::<DecisionFields>(&record.value).ok();
        let Some((id, decision)) = decision.and_then(|made| Some((Id::parse(&made.id)?.as_u128(), made))) else {
            self.unreadable += 1;
            return;
        };
        if !self.recent.insert(id) {
            return;
        }
        if decision.kind != "login" {
            self.visits += 1;
            return;
        }
        let succeeded = self.outcomes.as_ref().and_then(|outcomes| outcomes.get(&id).copied());
        let known = LabelAndOutcome { label: self.labels.get(&id).copied(), succeeded };
        self.matched += u64::from(known.label.is_some());
        self.total.add(known, 0.0);
        entry(&mut self.by_decision, decision.decision.unwrap_or_default()).add(known, 0.0);
        for (counts, given) in [(&mut self.by_reason, decision.reasons), (&mut self.by_shadow, decision.shadow)] {
            for ReasonFields { code, effect } in given {
                entry(counts, code).add(known, effect);
            }
        }
    }

    /// The report of all counts.
    pub fn report(self) -> DecisionReport {
        DecisionReport {
            total: self.total.row("all".into()),
            by_decision: self.by_decision.into_iter().map(|(name, count)| count.row(name)).collect(),
            by_reason: reasons(self.by_reason),
            by_shadow: reasons(self.by_shadow),
            unmatched: self.labels.len() as u64 - self.matched,
            visits: self.visits,
            unreadable: self.unreadable,
            outcomes: self.outcomes.is_some(),
        }
    }
}

fn entry(counts: &mut BTreeMap<String, Count>, name: String) -> &mut Count {
    let name = if counts.len() < NAMES_MAX || counts.contains_key(&name) { name } else { OTHERS.to_owned() };
    counts.entry(name).or_default()
}

fn reasons(counts: BTreeMap<String, Count>) -> Vec<DecisionReportRow> {
    let mut rows: Vec<_> = counts.into_iter().map(|(name, count)| count.reason(name)).collect();
    // The sort is stable: rows of equal frequency stay in the order of their names.
    rows.sort_by_key(|row| std::cmp::Reverse(row.given));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_events::codec::{Defaults, decode_structured};
    use foretell_events::{Position, Topic};
    use serde_json::{Value, json};

    fn id(n: u64) -> String {
        Id::new(1_772_359_200_000, 0, n).to_string()
    }

    fn event(kind: &str, data: &Value) -> Event {
        let event = json!({"specversion": "1.0", "id": "e", "source": "s", "type": format!("foretell.login.{kind}"),
            "time": "2026-03-01T10:00:00Z", "data": data});
        decode_structured(&event, Defaults { tenant: "default", time_ms: 0 }).unwrap().event
    }

    fn record(value: &Value) -> Record {
        let position = Position { topic: Topic::Decisions, partition: 0, offset: 0 };
        let headers = vec![("ce_type".to_owned(), DECISION.name.into())];
        Record { position, timestamp_ms: 0, key: None, value: value.to_string().into(), headers }
    }

    fn made(n: u64, decision: &str, reasons: &[(&str, f64)]) -> Record {
        let reasons: Vec<_> = reasons.iter().map(|(code, effect)| json!({"code": code, "effect": effect})).collect();
        record(&json!({"id": id(n), "kind": "login", "decision": decision, "reasons": reasons}))
    }

    fn verdict(n: u64, kind: &str) -> Event {
        event(kind, &json!({"user_id": "u", "decision_id": id(n)}))
    }

    fn tallied(events: &[Event], records: &[Record]) -> DecisionReport {
        let mut tally = DecisionTally::new();
        events.iter().for_each(|event| tally.record_event(event).unwrap());
        records.iter().for_each(|record| tally.count(record));
        tally.report()
    }

    fn row<'a>(rows: &'a [DecisionReportRow], name: &str) -> &'a DecisionReportRow {
        rows.iter().find(|row| row.name == name).unwrap()
    }

    #[test]
    fn reasons_and_decisions_are_held_against_labels() {
        let events = [
            verdict(1, "reported"),
            verdict(2, "confirmed"),
            verdict(3, "reported"),
            // A person changed their mind: the latest label counts.
            verdict(3, "confirmed"),
            verdict(9, "reported"),
            event("succeeded", &json!({"user_id": "u", "ip": "::1", "decision_id": id(2)})),
            event("failed", &json!({"user_id": "u", "ip": "::1", "decision_id": id(3)})),
            event("succeeded", &json!({"user_id": "u", "ip": "::1", "decision_id": id(3)})),
            event("failed", &json!({"user_id": "u", "ip": "::1", "decision_id": id(1)})),
            event("succeeded", &json!({"user_id": "u", "ip": "::1", "decision_id": "of our own"})),
            event("succeeded", &json!({"user_id": "u", "ip": "::1"})),
        ];
        let records = [
            made(1, "challenge", &[("NEW_DEVICE", 1.0), ("NEW_COUNTRY", 0.5)]),
            made(2, "challenge", &[("NEW_DEVICE", 2.0)]),
            made(3, "allow", &[("KNOWN_IP", -1.0)]),
            made(4, "allow", &[("KNOWN_IP", -2.0), ("NEW_DEVICE", 3.0)]),
        ];
        let report = tallied(&events, &records);
        for (rows, name, given, fraud, legitimate, succeeded, failed) in [
            (&report.by_reason, "NEW_DEVICE", 3, 1, 1, 1, 1),
            (&report.by_reason, "NEW_COUNTRY", 1, 1, 0, 0, 1),
            (&report.by_reason, "KNOWN_IP", 2, 0, 1, 1, 0),
            (&report.by_decision, "allow", 2, 0, 1, 1, 0),
            (&report.by_decision, "challenge", 2, 1, 1, 1, 1),
        ] {
            let row = row(rows, name);
            let found = (row.given, row.fraud, row.legitimate, row.succeeded, row.failed);
            assert_eq!(found, (given, fraud, legitimate, succeeded, failed), "{name}");
            assert_eq!(row.labelled, fraud + legitimate);
            assert_eq!(row.precision, Some(fraud as f64 / row.labelled as f64), "{name}");
        }
        assert_eq!((report.total.given, report.total.labelled, report.unmatched), (4, 3, 1));
        assert_eq!(row(&report.by_reason, "NEW_DEVICE").effect, Some(2.0));
        assert_eq!(row(&report.by_decision, "allow").effect, None);
        let order: Vec<_> = report.by_reason.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(order, ["NEW_DEVICE", "KNOWN_IP", "NEW_COUNTRY"]);
        assert!(report.by_shadow.is_empty() && report.outcomes);
    }

    #[test]
    fn rules_in_the_shadow_are_held_against_labels_too() {
        let shadow = |n, codes: &[&str]| {
            let shadow: Vec<_> = codes.iter().map(|code| json!({"code": code, "effect": 1.5})).collect();
            record(&json!({"id": id(n), "kind": "login", "decision": "allow", "reasons": [], "shadow": shadow}))
        };
        let report =
            tallied(&[verdict(1, "reported")], &[shadow(1, &["NIGHT"]), shadow(2, &["NIGHT", "TOR"]), shadow(3, &[])]);
        let night = row(&report.by_shadow, "NIGHT");
        assert_eq!((night.given, night.fraud, night.precision, night.effect), (2, 1, Some(1.0), Some(1.5)));
        assert_eq!(row(&report.by_shadow, "TOR").precision, None, "nobody has labelled any");
        assert!(report.by_reason.is_empty());
    }

    #[test]
    fn what_is_no_decision_about_a_login_is_told_apart_and_repetitions_count_once() {
        let mut other = made(5, "allow", &[]);
        other.headers.clear();
        let records = [
            made(1, "deny", &[("DENYLISTED_NETWORK", 2.0)]),
            made(1, "deny", &[("DENYLISTED_NETWORK", 2.0)]),
            record(&json!({"id": id(2), "kind": "appointment", "reasons": []})),
            record(&json!({"id": "x", "kind": "login"})),
            record(&json!([])),
            other,
        ];
        let report = tallied(&[], &records);
        assert_eq!((report.total.given, report.visits, report.unreadable), (1, 1, 3));
        assert_eq!(report.by_reason[0].given, 1);
    }

    #[test]
    fn limits_are_kept_and_said() {
        let many: Vec<_> = (0..NAMES_MAX + 5).map(|n| (format!("R{n}"), 0.0)).collect();
        let many: Vec<_> = many.iter().map(|(name, effect)| (name.as_str(), *effect)).collect();
        let report = tallied(&[], &[made(1, "allow", &many)]);
        assert_eq!((report.by_reason.len(), row(&report.by_reason, OTHERS).given), (NAMES_MAX + 1, 5));
        let labels = (0..LABELS_MAX as u128).map(|n| (n, FeedbackLabel::Fraud)).collect();
        let mut tally = DecisionTally { labels, ..DecisionTally::new() };
        assert_eq!(tally.record_event(&verdict(7, "reported")), Err(TooManyLabels));
        let outcomes = (0..OUTCOMES_MAX as u128).map(|n| (n, true)).collect();
        let mut tally = DecisionTally { outcomes: Some(outcomes), ..DecisionTally::default() };
        tally.outcome(Id::new(1, 0, 1), true);
        assert!(!tally.report().outcomes, "and the report says that they are left out");
    }
}
