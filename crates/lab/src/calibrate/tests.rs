//! Tests that calibrate a small simulated history, and files that cannot be calibrated.

use super::replay::Scored;
use super::*;
use crate::simulate::{self, HistorySize, SimulatedHistory};
use crate::source::{self, Origin, SourceData, SourceFormat};
use foretell_domain::score::login::LoginPolicy;
use foretell_domain::view::Limits;
use std::sync::OnceLock;

fn load(text: &[u8]) -> SourceData {
    source::read_from(text, Origin::default(), SourceFormat::Events).unwrap()
}

fn replay(loaded: &SourceData) -> Result<Replayed, Error> {
    let mut replayed = Replayed::default();
    replayed.add("a file", loaded, &LoginPolicy::default(), &Limits::default(), &mut |_| {}).map(|()| replayed)
}

/// 250 accounts over 200 days, replayed once for all tests.
fn replayed() -> &'static Replayed {
    static REPLAYED: OnceLock<Replayed> = OnceLock::new();
    REPLAYED.get_or_init(|| {
        let mut lines = Vec::new();
        let history = SimulatedHistory::new(HistorySize { users: 250, days: 200, seed: 11 }).unwrap();
        simulate::write(history, &mut lines, &mut |_| {}).unwrap();
        replay(&load(&lines)).unwrap()
    })
}

fn scored(score: f64) -> Scored {
    Scored { score: Some(score), baseline: 0.0 }
}

const FIRST: Scored = Scored { score: None, baseline: 0.0 };

#[test]
fn attackers_with_more_knowledge_are_harder_to_detect_and_the_target_is_reached() {
    for target in [0.9, 0.98, 1.0] {
        let calibration = CalibrationResult::new(replayed(), target).unwrap();
        let [naive, vpn, targeted] = &calibration.curves[..] else { panic!("three attackers") };
        let auc = [naive, vpn, targeted].map(|curve| curve.roc.auc.unwrap());
        assert!(auc[0] >= auc[1] && auc[1] >= auc[2] && auc[2] > 0.6, "{auc:?}");
        for Curve { attacker, at_target, attacks, unscored, .. } in &calibration.curves {
            assert!(at_target.caught >= target, "{attacker:?} {at_target:?}");
            assert_eq!((*attacks + *unscored) as u64, 250 * simulate::ATTACKS);
        }
        let PolicyThresholds { challenge_at, deny_at } = calibration.thresholds;
        assert!(challenge_at <= targeted.at_target.threshold.unwrap() && challenge_at <= deny_at && deny_at <= 1.0);
        assert!(calibration.denied <= DENIED_MAX || deny_at == challenge_at, "{}", calibration.denied);
    }
}

#[test]
fn the_baseline_is_compared_at_a_price_that_is_no_higher() {
    let calibration = CalibrationResult::new(replayed(), 0.98).unwrap();
    for Curve { compared, .. } in &calibration.curves {
        assert!(compared.score.challenged <= compared.baseline.challenged);
        assert!(compared.baseline.challenged > 0.0 && compared.baseline.caught > 0.5, "{compared:?}");
    }
    let rates: Vec<_> = calibration.baseline_paid.iter().map(|paid| paid.mean).collect();
    assert!(rates.is_sorted(), "more logins, more challenges: {rates:?}");
}

#[test]
fn people_pay_for_scored_logins_alone() {
    let account = |scores: &[Option<f64>]| scores.iter().map(|score| score.map_or(FIRST, scored)).collect::<Vec<_>>();
    let people = vec![
        account(&[None, Some(0.9), Some(0.1), Some(0.9), Some(0.9)]),
        account(&[None, Some(0.1), Some(0.1), Some(0.1)]),
        account(&[None, Some(0.9), Some(0.1), Some(0.1)]),
        account(&[None, Some(0.9), Some(0.9)]),
    ];
    let attack = |author| (author, scored(0.5));
    let attacks = Author::ATTACKERS.into_iter().map(attack).chain([(Author::Vpn, FIRST)]).collect();
    let calibration = CalibrationResult::new(&Replayed { people, attacks }, 0.98).unwrap();
    assert_eq!((calibration.logins, calibration.first_logins), (12, 4));
    let vpn = &calibration.curves[1];
    assert_eq!((vpn.attacks, vpn.unscored, vpn.at_target.threshold), (1, 1, Some(0.5)));
    // Of the first four logins: two, none and one; the account with three logins does not count.
    let expected = Paid { logins: 4, accounts: 3, median: 1.0, mean: 1.0, p90: 2.0 };
    assert_eq!(vpn.paid[0], expected);
    assert_eq!((vpn.paid[1].accounts, vpn.paid[1].median), (0, 0.0));
    assert_eq!(calibration.thresholds, PolicyThresholds { challenge_at: 0.5, deny_at: 0.900_000_001 });
    assert_eq!((calibration.challenged, calibration.denied), (0.5, 0.0));
}

#[test]
fn what_cannot_be_calibrated_is_refused_with_a_sentence() {
    let line = |label: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"x1","source":"t","type":"foretell.login.succeeded","time":"2026-01-01T00:00:00Z","data":{{"user_id":"u","ip":"192.0.2.1"{label}}}}}"#
        )
    };
    for label in ["", r#","label":"vip""#, r#","label":7"#] {
        let error = replay(&load(line(label).as_bytes())).unwrap_err();
        assert!(error.to_string().starts_with("a file: event \"x1\" has no label"), "{error}");
    }
    let first = replay(&load(line(r#","label":"legitimate""#).as_bytes())).unwrap();
    assert_eq!(CalibrationResult::new(&first, 0.98), Err(Error::NoScores("legitimate")), "a first login has no score");
    let people = vec![vec![FIRST, scored(0.5)]];
    assert_eq!(CalibrationResult::new(&Replayed { people, attacks: vec![] }, 0.98), Err(Error::NoScores("naive")));
    for target in [0.0, -1.0, 1.1, f64::NAN] {
        assert!(matches!(CalibrationResult::new(&first, target), Err(Error::Target(_))), "{target}");
    }
}

#[test]
fn tables_and_pictures_name_every_attacker() {
    let calibration = CalibrationResult::new(replayed(), 0.98).unwrap();
    let (table, picture) = (calibration.to_string(), svg(&calibration).unwrap());
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    for attacker in Author::ATTACKERS.map(Author::name) {
        assert_eq!(table.matches(&format!("\n{attacker} ")).count(), 3, "{table}");
        assert!(
            picture.contains(&format!("{attacker}: score")) && picture.contains(&format!("{attacker}: the baseline"))
        );
    }
    assert!(table.contains("challenge_at = ") && table.contains("of users' logins"), "{table}");
    assert!(picture.contains("share of attacks that are challenged"));
}

#[test]
fn the_page_shows_what_the_script_wrote() {
    let page = include_str!("../../../../docs/EVALUATION.md");
    for (name, written) in [
        ("pooled.txt", include_str!("../../../../docs/evaluation/pooled.txt")),
        ("policy.toml", include_str!("../../../../docs/evaluation/policy.toml")),
    ] {
        let block = page.split(&format!("<!-- {name} -->\n")).nth(1).and_then(|rest| rest.split("<!-- end -->").next());
        let lines = block.unwrap_or_default().lines().filter(|line| !line.starts_with("```"));
        assert_eq!(lines.collect::<Vec<_>>(), written.lines().collect::<Vec<_>>(), "run scripts/calibrate");
    }
    let document: toml_edit::DocumentMut = include_str!("../../../../docs/evaluation/policy.toml").parse().unwrap();
    let policy = PolicyFile::from(document);
    let LoginPolicy { challenge_at, deny_at, .. } = policy.policy(&LoginPolicy::default()).unwrap();
    assert_eq!(
        policy.policy(&LoginPolicy::default()).unwrap(),
        LoginPolicy::default(),
        "the thresholds are the defaults"
    );
    let pooled = include_str!("../../../../docs/evaluation/pooled.txt");
    assert!(
        pooled.contains(&format!("challenge_at = {challenge_at} "))
            && pooled.contains(&format!("deny_at = {deny_at} "))
    );
}
