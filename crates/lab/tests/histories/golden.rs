//! The faithful mode reproduces the publication: two synthetic histories whose scores were computed with the
//! published notebook, each row from the rows strictly before it.

use crate::shared::{FILES, RELATIVE_ERROR_MAX, Row, path, read};
use foretell_domain::score::login::{self, Features, LoginEvidence, LoginPolicy, Mode};
use foretell_domain::score::{LoginDecision, ReasonCode, RiskLevel};
use foretell_domain::view::RecordPosition;
use foretell_domain::view::materialized::Materialized;
use foretell_domain::view::user::{self, LoginFold};
use foretell_events::login::{Attempt, Login, LoginFact};
use foretell_events::{Envelope, Event, Fact};
use foretell_lab::evaluate::{self, LoginOptions};
use foretell_lab::source::{self, SourceFormat};

const TENANT: &str = "golden";

fn event(row: &Row) -> Event {
    let attempt = Attempt {
        asn: Some(row.asn),
        country: Some(row.country.clone()),
        user_agent: Some(row.ua.clone()),
        browser: Some(row.browser.clone()),
        os: Some(row.os.clone()),
        device_type: Some(row.device_type.clone()),
        ..Attempt::from_ip(row.ip)
    };
    let login = Login {
        user_id: row.user_id.clone(),
        succeeded: true,
        attempt,
        decision_id: None,
        session_id: None,
        method: None,
        failure_reason: None,
    };
    let time_ms = foretell_events::zone::instant_ms(row.timestamp, &jiff::tz::TimeZone::UTC);
    let envelope = Envelope { id: row.index.to_string(), source: "golden".into(), tenant: TENANT.into(), time_ms };
    Event { envelope, fact: LoginFact::Attempted(Box::new(login)).into() }
}

fn score(rows: &Materialized<LoginFold>, event: &Event, policy: &LoginPolicy) -> login::LoginScore {
    let Fact::Login(LoginFact::Attempted(login)) = &event.fact else { unreachable!("only logins are built here") };
    let features = Features::of(rows, TENANT, &login.attempt);
    let user = rows.owner(&user::row_key(TENANT, &login.user_id));
    let at_ms = event.envelope.time_ms;
    login::score(&LoginEvidence::of(user, &features, &login.attempt, at_ms), policy)
}

/// Folds a file, spread over partitions as in a topic, and compares each row's ratio before it is folded.
fn reproduce(name: &str, partitions: u32) -> usize {
    let policy = LoginPolicy { mode: Mode::Faithful, ..LoginPolicy::default() };
    let mut rows = Materialized::new(LoginFold::default());
    let mut scored = 0;
    for row in read(name) {
        let event = event(&row);
        let got = score(&rows, &event, &policy);
        assert_eq!(got.history.successes, row.n_user_before, "{name} {}", row.index);
        match row.score_causal {
            Some(expected) => {
                let ratio = got.likelihood_ratio.expect("a user with history is scored");
                let error = (ratio / expected - 1.0).abs();
                assert!(error <= RELATIVE_ERROR_MAX, "{name} {}: {ratio} instead of {expected}", row.index);
                scored += 1;
            }
            None => {
                assert_eq!((got.score, got.likelihood_ratio), (None, None), "{name} {}", row.index);
                assert_eq!((got.level, got.decision), (RiskLevel::Unscored, LoginDecision::Challenge));
                assert_eq!(got.reasons[0].code, ReasonCode::FirstLogin);
            }
        }
        let partition = foretell_events::key::partition(event.key().as_bytes(), partitions);
        assert!(rows.take(&event, RecordPosition { partition, offset: row.index }));
    }
    scored
}

#[test]
fn every_golden_score_is_reproduced() {
    for (name, scored) in FILES {
        for partitions in [1, 8] {
            assert_eq!(reproduce(name, partitions), scored, "{name} on {partitions} partitions");
        }
    }
}

/// The row that the documentation computes step by step.
#[test]
fn the_worked_row_is_reproduced() {
    let policy = LoginPolicy { mode: Mode::Faithful, ..LoginPolicy::default() };
    let mut rows = Materialized::new(LoginFold::default());
    for row in read("synthetic_seed1_n300.csv").into_iter().take(22) {
        let event = event(&row);
        if row.index == 21 {
            let ratio = score(&rows, &event, &policy).likelihood_ratio.unwrap();
            assert!((ratio / 0.034_126_112_828_333_62 - 1.0).abs() < 1e-12, "{ratio}");
            return;
        }
        rows.take(&event, RecordPosition { partition: 0, offset: row.index });
    }
    unreachable!("the file has a row 21");
}

/// A backtest of the same files has the same result.
#[test]
fn a_backtest_has_the_same_result() {
    for (name, _) in FILES {
        let loaded = source::read(&path(name), SourceFormat::Rba, TENANT).expect("the file is committed");
        let mut options = LoginOptions::default();
        options.score.mode = Mode::Faithful;
        let mut out = Vec::new();
        evaluate::logins(&loaded, &options, &mut out, &mut |_, _| {}).expect("memory can be written to");
        let lines: Vec<serde_json::Value> =
            out.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        let rows = read(name);
        assert_eq!(lines.len(), rows.len());
        for (line, row) in lines.iter().zip(&rows) {
            assert_eq!(line["event_id"], row.index.to_string());
            let ratio = line["likelihood_ratio"].as_f64();
            assert_eq!(ratio.is_some(), row.score_causal.is_some(), "{line}");
            let error = ratio.zip(row.score_causal).map_or(0.0, |(ratio, expected)| (ratio / expected - 1.0).abs());
            assert!(error <= RELATIVE_ERROR_MAX, "{line} instead of {:?}", row.score_causal);
        }
    }
}
