//! The questions of the demo: requests as commands to copy, and their answers as sentences.

use super::clinic::{self, REMINDED};
use foretell_events::zone;
use serde_json::Value;

/// Maximum number of reasons in a line; the strongest are named.
const REASONS_MAX: usize = 3;
/// Reasons with less effect, in log-odds, are left out.
const EFFECT_MIN: f64 = 0.05;

/// A request, and how its answer is summarised.
pub(super) struct Question {
    pub(super) title: &'static str,
    pub(super) request: Request,
    pub(super) summary: fn(&Value) -> Summary,
}

/// A request. Paths begin with `/`.
pub(super) enum Request {
    /// A score of a login, with a JSON body.
    Login(&'static str),
    /// A GET of a path.
    Get(String),
    /// The first reminder of [`REMINDED`] on the stream.
    Stream,
}

/// Whether a result is good or bad for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Caution,
    Bad,
}

/// An answer in words.
pub(super) struct Summary {
    /// The main result, and its tone.
    pub(super) result: (String, Tone),
    /// Details that continue the sentence after the result.
    pub(super) details: String,
}

impl Request {
    pub(super) const fn method(&self) -> &'static str {
        match self {
            Self::Login(_) => "POST",
            Self::Get(_) | Self::Stream => "GET",
        }
    }

    pub(super) fn path(&self) -> &str {
        match self {
            Self::Login(_) => "/v1/risk/logins",
            Self::Get(path) => path,
            Self::Stream => "/v1/reminders/stream",
        }
    }

    pub(super) const fn body(&self) -> Option<&'static str> {
        match self {
            Self::Login(body) => Some(*body),
            Self::Get(_) | Self::Stream => None,
        }
    }

    /// The lines of the command that sends it to `host`.
    pub(super) fn command(&self, host: &str) -> Vec<String> {
        let path = self.path();
        match self {
            Self::Login(body) => json_command("curl", host, path, body),
            Self::Get(_) => vec![format!("curl {host}{path}")],
            Self::Stream => vec![format!("curl -N {host}{path}")],
        }
    }
}

/// The lines of a command that sends JSON.
pub(super) fn json_command(curl: &str, host: &str, path: &str, body: &str) -> Vec<String> {
    vec![format!("{curl} {host}{path} -H content-type:application/json \\"), format!("  -d '{body}'")]
}

/// Questions about logins, one after the other.
pub(super) fn of_logins() -> [Question; 3] {
    let ask = |title, body| Question { title, request: Request::Login(body), summary: login };
    [
        ask(
            "Ada logs in at home, with her laptop. How risky is that?",
            r#"{"user_id":"ada","ip":"198.51.100.10","asn":64500,"country":"DE","device_id":"ada-laptop"}"#,
        ),
        ask(
            "The same laptop, but abroad, in a hotel:",
            r#"{"user_id":"ada","ip":"192.0.2.201","asn":64503,"country":"PT","device_id":"ada-laptop"}"#,
        ),
        ask(
            "Ada's password, used by the attacker:",
            r#"{"user_id":"ada","ip":"203.0.113.66","country":"SC","user_agent":"python-requests/2.34"}"#,
        ),
    ]
}

/// Questions about the clinic's visits.
pub(super) fn of_visits() -> [Question; 3] {
    let get = |title, path: String, summary| Question { title, request: Request::Get(path), summary };
    [
        get("Will George come to his next visit?", "/v1/risk/appointments/george-next".into(), visit),
        get(
            "Which reminders does Fatima get? (Times are those of the clinic, in Berlin.)",
            format!("/v1/appointments/{REMINDED}"),
            reminders,
        ),
        Question {
            title: "What the program that sends her messages receives:",
            request: Request::Stream,
            summary: announcement,
        },
    ]
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

/// The reasons of a score that weigh enough to be named, the strongest first.
fn reasons(answer: &Value) -> Vec<&Value> {
    let effect = |reason: &&Value| reason["effect"].as_f64().unwrap_or_default().abs();
    let mut reasons: Vec<_> = list(answer, "reasons").filter(|reason| effect(reason) >= EFFECT_MIN).collect();
    reasons.sort_by(|a, b| effect(b).total_cmp(&effect(a)));
    reasons
}

fn login(answer: &Value) -> Summary {
    let decision = text(answer, "decision");
    let tone = match decision {
        "allow" => Tone::Good,
        "challenge" => Tone::Caution,
        _ => Tone::Bad,
    };
    let words: Vec<_> =
        reasons(answer).into_iter().take(REASONS_MAX).map(|reason| words(text(reason, "code"))).collect();
    let score = answer["score"].as_f64().map_or_else(|| "none".to_owned(), digits);
    let details = format!(", {} risk: score {score}; {}", text(answer, "level"), words.join(", "));
    Summary { result: (decision.to_owned(), tone), details }
}

/// A reason in a few words.
fn words(code: &str) -> String {
    match code {
        "HISTORY" => "length of history".into(),
        "KNOWN_IP" => "known address".into(),
        "OWN_ADDRESS" => "her own address".into(),
        "OWN_NETWORK" => "her own network".into(),
        "NEW_IP" => "new address".into(),
        "IP_FAN_OUT" => "many accounts failed there".into(),
        "AUTOMATED_CLIENT" => "a program".into(),
        other => other.to_lowercase().replace('_', " "),
    }
}

/// A score with two significant digits of its distance from 0 or from 1.
fn digits(score: f64) -> String {
    let rest = score.min(1.0 - score).max(1e-12);
    let decimals = (1.0 - rest.log10()).ceil().clamp(2.0, 12.0) as usize;
    format!("{score:.decimals$}")
}

fn visit(answer: &Value) -> Summary {
    let percent = answer["score"].as_f64().unwrap_or_default() * 100.0;
    let (level, action) = (text(answer, "level"), text(answer, "recommended_action"));
    let tone = match level {
        "low" => Tone::Good,
        "medium" => Tone::Caution,
        _ => Tone::Bad,
    };
    let of_client = reasons(answer).into_iter().find(|reason| text(reason, "code") != "BASE_RATE");
    let why = of_client.map(|reason| text(reason, "description").trim_end_matches('.')).unwrap_or_default();
    let details = format!(", {level}: {action}. {why}.");
    Summary { result: (format!("{percent:.0} % likely to be missed"), tone), details }
}

/// The reminder that was sent, and those that are planned.
fn reminders(answer: &Value) -> Summary {
    let with = |status: &str, how: &str| {
        let those = list(answer, "reminders").filter(|reminder| text(reminder, "status") == status);
        let said = those.map(|reminder| (text(reminder, "step"), instant(text(reminder, "due_at"))));
        said.map(|(step, at)| format!("{step} {how} {at}")).collect::<Vec<_>>()
    };
    let details: String = with("planned", "planned").into_iter().map(|planned| format!(", {planned}")).collect();
    let details = format!("{details}; visit {}", local(text(answer, "local_start")));
    Summary { result: (with("sent", "reminder sent").join(", "), Tone::Good), details }
}

/// Whether a reminder of the appointment was sent.
pub(super) fn is_reminded(answer: &Value) -> bool {
    list(answer, "reminders").any(|reminder| text(reminder, "status") == "sent")
}

/// A `foretell.reminder.due` of the stream.
fn announcement(event: &Value) -> Summary {
    let data = &event["data"];
    let channels: Vec<_> = list(data, "channels").filter_map(Value::as_str).collect();
    let result = format!("remind {} by {}", text(data, "client_id"), channels.join(" or "));
    let details =
        format!(" of the visit on {}; announced on {}", local(text(data, "local_start")), instant(text(event, "time")));
    Summary { result: (result, Tone::Good), details }
}

/// An RFC 3339 instant in the clinic's local time.
fn instant(at: &str) -> String {
    let local = |at: jiff::Timestamp| zone::local(at.as_millisecond(), &clinic::rules());
    at.parse().map_or_else(|_| at.to_owned(), |at| clinic::people_write(local(at)))
}

fn local(at: &str) -> String {
    at.parse().map_or_else(|_| at.to_owned(), clinic::people_write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_score_has_two_digits_of_what_separates_it_from_either_end() {
        for (score, expected) in [
            (0.5, "0.50"),
            (0.889, "0.89"),
            (0.999_998_96, "0.9999990"),
            (0.000_003_4, "0.0000034"),
            (1.0, "1.000000000000"),
        ] {
            assert_eq!(digits(score), expected);
        }
    }

    #[test]
    fn the_strongest_reasons_are_named_first_and_weak_ones_are_not() {
        let answer = json!({"decision": "challenge", "level": "medium", "score": 0.889, "reasons": [
            {"code": "HISTORY", "effect": 0.01}, {"code": "NEW_COUNTRY", "effect": 0.7},
            {"code": "OWN_NETWORK", "effect": -2.3}]});
        let Summary { result, details } = login(&answer);
        assert_eq!((result.0.as_str(), result.1), ("challenge", Tone::Caution));
        assert_eq!(details, ", medium risk: score 0.89; her own network, new country");
    }

    #[test]
    fn a_reminder_that_was_sent_and_the_next_one_fit_a_line() {
        let reminder =
            |step: &str, status: &str, due_at: &str| json!({"step": step, "status": status, "due_at": due_at});
        let answer = json!({"local_start": "2026-11-30T08:30:00", "reminders": [
            reminder("72h", "sent", "2026-11-28T20:18:37.123Z"), reminder("24h", "planned", "2026-11-29T07:30:00Z")]});
        let Summary { result, details } = reminders(&answer);
        assert_eq!(result.0, "72h reminder sent Sat 28 Nov 21:18");
        assert_eq!(details, ", 24h planned Sun 29 Nov 08:30; visit Mon 30 Nov 08:30");
        assert!(is_reminded(&answer) && !is_reminded(&json!({"reminders": [reminder("24h", "planned", "")]})));
    }

    #[test]
    fn times_are_said_by_the_clocks_of_the_clinic() {
        assert_eq!(instant("2026-07-01T10:05:00.000Z"), "Wed 1 Jul 12:05");
        assert_eq!(local("2026-12-03T17:00:00"), "Thu 3 Dec 17:00");
    }
}
