//! Which rules are accepted, which are rejected and why, and what they result in.

use super::*;
use crate::score::login::{Features, LoginEvidence, LoginPolicy, score};
use crate::view::user::User;
use foretell_events::appointment::Scalar;
use foretell_events::login::Attempt;
use serde_json::json;
use std::collections::BTreeMap;

fn rule(when: &str) -> Result<Rule, String> {
    let written = json!({"code": "OURS", "when": when, "factor": 2.0});
    serde_json::from_value(written).map_err(|error| error.to_string())
}

#[test]
fn expressions_that_mean_something_are_accepted() {
    for when in [
        "true",
        "country != \"IE\" && !known_device",
        "\"NEW_DEVICE\" in signals || likelihood_ratio > 2.5",
        "signals.exists(code, code == \"IP_FAN_OUT\") && size(signals) > 1",
        "\"role\" in attributes && attributes[\"role\"] == \"admin\"",
        "has(attributes.role) && attributes.role == \"admin\"",
        "ip.startsWith(\"10.\") || city.contains(\"x\")",
        "hour_utc < 6 || weekday_utc in [6, 7]",
        "failures_recent / successes > 1",
        "asn in [64500, 64501]",
        "distance_km > 100.0 && speed_kmh > 500.0",
        "first_login ? rtt_ms > 200.0 : days_since_success > 30.0",
    ] {
        assert!(rule(when).is_ok(), "{when}: {:?}", rule(when));
    }
}

#[test]
fn expressions_that_do_harm_or_mean_nothing_are_refused_with_the_reason() {
    let brackets = format!("{}true{}", "(".repeat(17), ")".repeat(17));
    for (when, expected) in [
        ("", "syntax error"),
        ("country ==", "syntax error"),
        ("contry == \"IE\"", "there is no variable contry; did you mean country?"),
        ("country", "the expression is of type string, not bool"),
        ("country == 5", "type string is compared with a value of type int, so they are never equal"),
        ("false && country > 5", "type error"),
        ("nonsense(country)", "type error"),
        ("successes + country == 1", "type error"),
        (&"true || ".repeat(20_000), "bytes, more than 1024"),
        (&brackets, "brackets are nested deeper than 16"),
        (&format!("{}1 == 1", "1 + ".repeat(40)), "nested deeper than 32"),
        (&format!("{}true", "1==1||".repeat(150)), "more than 256 nodes"),
        (&format!("{}1 in [1]", "1 in [1] && ".repeat(70)), "the expression"),
        (
            "signals.all(a, signals.all(b, signals.all(c, signals.all(d, signals.all(e, a == e)))))",
            "loops cannot be nested",
        ),
        (
            &format!("asn in [{}]", (0..65).map(|n| n.to_string()).collect::<Vec<_>>().join(",")),
            "more than 64 elements",
        ),
        ("google.protobuf.Duration{} == 1", "cannot create messages"),
    ] {
        let refused = rule(when).expect_err(when);
        assert!(refused.contains(expected), "{when:.60}: {refused}");
    }
}

/// Every input gets an answer: no stack overflows, and no evaluation takes long.
#[test]
fn no_text_of_a_kilobyte_takes_the_process_down() {
    for unit in
        ["(", "[", "{", "!", "-", "a.", "1+", "true?", "x.map(y,", "\"", "\\", "\u{0}", "é", "a[", "[[],", "{1:"]
    {
        let text = unit.repeat(SOURCE_BYTES_MAX / unit.len());
        assert!(rule(&text).is_err(), "{unit:?}");
        assert!(rule(&format!("{}{text}", &text[..0])).is_err());
    }
}

/// Texts of the greatest length whose parts nest as deep as the limits of a text allow, or for which the parser and its
/// tree need the most recursive calls: chains and conditionals, without brackets and in the innermost ones.
fn deep_texts() -> Vec<String> {
    let outers =
        ["", "(", "[", "{1:", "!(", "--(", "a(", "a[", "(a?a:", "[a?a:", "{a:a?a:", "x.all(y,", "x.map(y,a?a:"];
    let inners = [".a", "+1", "*1", "==1", "||a", "&&a", "?a:a", "!", "-", "\""];
    let mut texts = Vec::new();
    for (outer, inner) in outers.into_iter().flat_map(|outer| inners.map(|inner| (outer, inner))) {
        let is_open = |byte: &u8| matches!(byte, b'(' | b'[' | b'{');
        let levels = BRACKETS_DEPTH_MAX / outer.bytes().filter(is_open).count().max(1);
        let opened = outer.repeat(if outer.is_empty() { 0 } else { levels });
        let close = |byte: u8| char::from(if byte == b'(' { b')' } else { byte + 2 });
        let closed: String = opened.bytes().filter(is_open).rev().map(close).collect();
        let space = SOURCE_BYTES_MAX - opened.len() - closed.len() - 1;
        texts.push(format!("{opened}a{}{closed}", inner.repeat(space / inner.len())));
        texts.push(format!("{opened}{}a{closed}", inner.repeat(space / inner.len())));
    }
    texts
}

/// Threads of the runtime and of tests have 2 MiB of stack. Half of that is enough for every text.
#[test]
fn no_text_needs_more_than_half_of_the_stack_of_a_thread() {
    let texts = deep_texts();
    assert!(texts.len() > 200 && texts.iter().all(|text| text.len() <= SOURCE_BYTES_MAX));
    assert!(texts.iter().all(|text| brackets_depth(text) <= BRACKETS_DEPTH_MAX));
    let read = move || texts.iter().for_each(|text| drop(compiled(text)));
    std::thread::Builder::new().stack_size(1024 * 1024).spawn(read).unwrap().join().unwrap();
}

#[test]
fn a_rule_names_itself_and_says_what_follows() {
    let read = |written: serde_json::Value| serde_json::from_value::<Rule>(written).map_err(|error| error.to_string());
    for (written, expected) in [
        (json!({"code": "NEW_DEVICE", "when": "true", "factor": 2.0}), "one of Foretell's own"),
        (json!({"code": "ours", "when": "true", "factor": 2.0}), "capitals"),
        (json!({"code": "1", "when": "true", "factor": 2.0}), "capitals"),
        (json!({"code": "A".repeat(65), "when": "true", "factor": 2.0}), "capitals"),
        (json!({"code": "A", "when": "true"}), "a factor or a decision"),
        (json!({"code": "A", "when": "true", "factor": 2.0, "decision": "deny"}), "a factor or a decision"),
        (json!({"code": "A", "when": "true", "factor": 0.0}), "0.0001 to 10000"),
        (json!({"code": "A", "when": "true", "factor": 10_001.0}), "0.0001 to 10000"),
        (json!({"code": "A", "when": "true", "decision": "perhaps"}), "unknown variant"),
        (json!({"code": "A", "when": "true", "factor": 2.0, "mode": "maybe"}), "unknown variant"),
        (json!({"code": "A", "when": "true", "factor": 2.0, "weight": 1}), "unknown field"),
        (json!({"code": "A", "when": "true", "factor": 2.0, "description": "x".repeat(257)}), "256 characters"),
    ] {
        let refused = read(written.clone()).expect_err("must be refused");
        assert!(refused.contains(expected), "{written}: {refused}");
    }
    let written = json!({"code": "A_1", "when": "true", "decision": "deny", "mode": "shadow"});
    assert_eq!(serde_json::to_value(read(written.clone()).unwrap()).unwrap(), written, "and is written as it was read");
}

/// The score with these rules of an attempt from Ireland, by a user with one login.
fn judged(rules: &serde_json::Value) -> crate::score::login::LoginScore {
    let policy = LoginPolicy::read(&json!({"rules": rules}), &LoginPolicy::default()).unwrap();
    let user = User { successes: 1, last_success_ms: Some(0), ..User::default() };
    let attempt = Attempt { country: Some("IE".into()), ..Attempt::from_ip(std::net::Ipv4Addr::LOCALHOST.into()) };
    let attributes = BTreeMap::from([("role".to_owned(), Scalar::Text("admin".into()))]);
    let features = Features::default();
    let evidence =
        LoginEvidence { attributes: &attributes, ..LoginEvidence::of(Some(&user), &features, &attempt, 1_000) };
    score(&evidence, &policy)
}

#[test]
fn factors_multiply_and_the_strongest_decision_counts() {
    let plain = judged(&json!([]));
    let odds = |score: &crate::score::login::LoginScore| score.score.map(|score| score / (1.0 - score)).unwrap();
    let doubled = judged(&json!([{"code": "A", "when": "attributes.role == 'admin'", "factor": 2.0}]));
    assert!((odds(&doubled) / odds(&plain) - 2.0).abs() < 1e-9);
    assert_eq!(doubled.reasons.last().map(|reason| (reason.code.name(), reason.effect)), Some(("A", 2.0_f64.ln())));
    let decide = |decision: &str| json!({"code": decision.to_uppercase(), "when": "true", "decision": decision});
    for (decisions, expected) in [
        (vec!["allow"], LoginDecision::Allow),
        (vec!["allow", "challenge"], LoginDecision::Challenge),
        (vec!["deny", "allow", "challenge"], LoginDecision::Deny),
    ] {
        let got = judged(&decisions.iter().copied().map(decide).collect());
        assert_eq!((got.decision, got.score), (expected, plain.score), "{decisions:?}");
        assert!(got.reasons.iter().rev().take(decisions.len()).all(|reason| reason.effect == 0.0));
    }
}

#[test]
fn shadow_rules_are_told_rules_that_are_off_are_not_and_failing_ones_do_not_hold() {
    let plain = judged(&json!([]));
    let shadow = judged(&json!([{"code": "A", "when": "true", "decision": "deny", "mode": "shadow"},
                               {"code": "B", "when": "country == 'IE'", "factor": 3.0, "mode": "shadow"},
                               {"code": "C", "when": "true", "factor": 3.0, "mode": "off"}]));
    assert_eq!((shadow.decision, shadow.score, &shadow.reasons), (plain.decision, plain.score, &plain.reasons));
    let told: Vec<_> = shadow.shadow.iter().map(|reason| (reason.code.name(), reason.effect)).collect();
    assert_eq!(told, [("A", 0.0), ("B", 3.0_f64.ln())]);
    for when in [
        "failures_recent / (successes - 1) > 1",
        "attributes['none'] == 'x'",
        "9223372036854775807 + asn + 1 > 0",
        "(-9223372036854775807 - successes) / (failures_recent - 1) > 0",
        "(-9223372036854775807 - successes) % (failures_recent - 1) > 0",
        "-(-9223372036854775807 - successes) > 0",
    ] {
        let failed = judged(&json!([{"code": "A", "when": when, "decision": "deny"}]));
        assert_eq!((failed.decision, failed.score), (plain.decision, plain.score), "{when}");
        assert!(failed.is_rule_failed && !plain.is_rule_failed, "{when}");
    }
}

#[test]
fn a_document_says_only_what_it_wants_otherwise() {
    let base = LoginPolicy::default();
    assert_eq!(LoginPolicy::read(&json!({}), &base), Ok(base.clone()));
    let stricter =
        LoginPolicy::read(&json!({"challenge_at": 0.2, "signals": {"new_device": {"factor": 9.0}}}), &base).unwrap();
    assert_eq!((stricter.challenge_at, stricter.deny_at), (0.2, base.deny_at));
    assert_eq!((stricter.signals.new_device.factor, stricter.signals.new_country), (9.0, base.signals.new_country));
    let many: Vec<_> = (0..65).map(|n| json!({"code": format!("R{n}"), "when": "true", "factor": 2.0})).collect();
    for (document, pointer) in [
        (json!([]), ""),
        (json!({"rules": "x".repeat(40_000)}), ""),
        (json!({"challange_at": 0.2}), "/challange_at"),
        (json!({"challenge_at": null}), ""),
        (json!({"challenge_at": "high"}), "/challenge_at"),
        (json!({"challenge_at": 1.0}), "/deny_at"),
        (json!({"signals": {"new_device": {"factor": -1.0}}}), "/signals/new_device/factor"),
        (json!({"signals": {"new_device": {"mode": "loud"}}}), "/signals/new_device/mode"),
        (json!({"rules": [{"code": "A", "when": "nothing", "factor": 2.0}]}), "/rules/0"),
        (json!({"rules": many}), "/rules"),
        (
            json!({"rules": [{"code": "A", "when": "true", "factor": 2.0}, {"code": "A", "when": "true", "factor": 3.0}]}),
            "/rules",
        ),
    ] {
        let refused = LoginPolicy::read(&document, &base).expect_err("must be refused");
        assert_eq!(refused.pointer, pointer, "{document:.80}: {refused}");
    }
}

#[test]
fn a_policy_takes_long_by_its_loops() {
    let (short, looping) = (rule("true || asn in [1, 2]").unwrap(), rule("!signals.exists(a, a == \"X\")").unwrap());
    assert!(!short.has_loop() && looping.has_loop());
    let of = |rules: Vec<Rule>| LoginPolicy { rules, ..LoginPolicy::default() };
    assert!(!of(vec![short.clone(); 64]).is_long());
    assert!(!of([vec![short; 60], vec![looping.clone(); 4]].concat()).is_long());
    assert!(of(vec![looping; 5]).is_long());
}
