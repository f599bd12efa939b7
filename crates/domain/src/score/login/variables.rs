//! The variables that rules of a policy may use to examine an attempt: a table of names and types.
//!
//! Every variable always has a value of its type, so a rule never has to check for its existence: unknown values are
//! `""`, `0` or `false`. Only `attributes` has optional keys, those that the caller sent; a rule tests
//! `"role" in attributes` before it uses the key.

use super::signal::{self, Signal};
use super::{Features, LoginEvidence};
use crate::view::user::User;
use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelString};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use foretell_events::appointment::Scalar;
use foretell_events::login::Attempt;
use foretell_events::suggest;
use foretell_events::time::{DAY_MS, HOUR_MS};
use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

/// A variable, its type in CEL, and its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name in expressions.
    pub name: &'static str,
    /// Its type.
    pub kind: &'static str,
    /// Its meaning.
    pub about: &'static str,
}

const fn variable(name: &'static str, kind: &'static str, about: &'static str) -> Variable {
    Variable { name, kind, about }
}

/// All variables of expressions.
pub const VARIABLES: &[Variable] = &[
    variable("likelihood_ratio", "double", "S before signals and rules; 1 for an account without history"),
    variable("signals", "list", "codes of the active signals that were observed, as in \"NEW_DEVICE\""),
    variable("ip", "string", "the address"),
    variable("asn", "int", "its autonomous system number"),
    variable("country", "string", "ISO 3166-1 alpha-2, upper case"),
    variable("city", "string", "the city"),
    variable("user_agent", "string", "the User-Agent string"),
    variable("browser", "string", "browser and version"),
    variable("os", "string", "operating system and version"),
    variable("device_type", "string", "such as mobile, desktop, tablet or bot"),
    variable("device_id", "string", "the caller's id of the device"),
    variable("rtt_ms", "double", "round-trip time in milliseconds"),
    variable("attributes", "map", "further attributes from the caller: strings, numbers, booleans"),
    variable("hour_utc", "int", "hour of the day, 0 to 23"),
    variable("weekday_utc", "int", "day of the week, 1 is Monday and 7 is Sunday"),
    variable("known_device", "bool", "the device is one of the user's known devices"),
    variable("new_country", "bool", "the user has never logged in from this country"),
    variable("first_login", "bool", "the account has no successful login yet"),
    variable("successes", "int", "successful logins of the account"),
    variable("failures_recent", "int", "failures of the account within 15 minutes"),
    variable("days_since_success", "double", "days since its last successful login"),
    variable("distance_km", "double", "kilometres from the last successful login"),
    variable("speed_kmh", "double", "the speed of travel from there, in kilometres per hour"),
    variable("denylisted", "bool", "the address is on a deny list"),
    variable("exempt_network", "bool", "the address is on an allow list"),
];

/// The variable of that name.
pub fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

/// The known name that is most similar, if any is.
pub fn suggest(name: &str) -> Option<&'static str> {
    suggest::nearest(name, VARIABLES.iter().map(|known| known.name), 0.8)
}

/// The values of one attempt.
#[derive(Debug, Clone, Copy)]
pub struct Variables<'a> {
    evidence: &'a LoginEvidence<'a>,
    user: Option<&'a User>,
    likelihood_ratio: f64,
    signals: &'a [Signal],
}

impl<'a> Variables<'a> {
    /// Those of an attempt after its comparison and its signals.
    pub(super) fn new(evidence: &'a LoginEvidence<'a>, likelihood_ratio: Option<f64>, signals: &'a [Signal]) -> Self {
        let user = evidence.scored_user();
        Self { evidence, user, likelihood_ratio: likelihood_ratio.unwrap_or(1.0), signals }
    }

    fn number(&self, name: &str) -> Option<f64> {
        let journey = || signal::journey(self.evidence, self.user?);
        Some(match name {
            "likelihood_ratio" => self.likelihood_ratio,
            "rtt_ms" => self.evidence.attempt.rtt_ms.unwrap_or_default(),
            "days_since_success" => {
                let last = self.user.and_then(|user| user.last_success_ms);
                last.map_or(0.0, |last| (self.evidence.at_ms - last).max(0) as f64 / DAY_MS as f64)
            }
            "distance_km" => journey().map_or(0.0, |journey| journey.distance_km),
            "speed_kmh" => journey().map_or(0.0, |journey| journey.speed_kmh),
            _ => return None,
        })
    }

    fn integer(&self, name: &str) -> Option<i64> {
        let at_ms = self.evidence.at_ms;
        Some(match name {
            "asn" => self.evidence.attempt.asn.unwrap_or_default().into(),
            "hour_utc" => at_ms.div_euclid(HOUR_MS).rem_euclid(24),
            // The first day of the epoch was a Thursday.
            "weekday_utc" => (at_ms.div_euclid(DAY_MS) + 3).rem_euclid(7) + 1,
            "successes" => self.user.map_or(0, |user| user.successes) as i64,
            "failures_recent" => self.evidence.user.map_or(0, |user| user.failures_at(at_ms)) as i64,
            _ => return None,
        })
    }

    fn flag(&self, name: &str) -> Option<bool> {
        let LoginEvidence { attempt, at_ms, listed, .. } = *self.evidence;
        Some(match name {
            "known_device" => self.user.is_some_and(|user| user.device_known(attempt, at_ms) == Some(true)),
            "new_country" => self.user.is_some_and(|user| signal::is_new_country(attempt, user)),
            "first_login" => self.user.is_none(),
            "denylisted" => listed.denied,
            "exempt_network" => listed.exempt,
            _ => return None,
        })
    }

    fn text(&self, name: &str) -> Option<&str> {
        let attempt = self.evidence.attempt;
        let text = match name {
            "country" => &attempt.country,
            "city" => &attempt.city,
            "user_agent" => &attempt.user_agent,
            "browser" => &attempt.browser,
            "os" => &attempt.os,
            "device_type" => &attempt.device_type,
            "device_id" => &attempt.device_id,
            _ => return None,
        };
        Some(text.as_deref().unwrap_or_default())
    }

    fn signals(&self) -> CelList<'_> {
        let codes = self.signals.iter().filter(|signal| signal.counts()).map(|signal| signal.code.name());
        CelList::from(codes.map(|code| Box::new(CelString::from(code)) as Box<dyn Val>).collect::<Vec<_>>())
    }

    fn attributes(&self) -> CelMap<'_> {
        let attributes = self.evidence.attributes.iter();
        let entries = attributes.map(|(key, value)| (CelMapKey::from(key.as_str()), scalar(value)));
        CelMap::from(entries.collect::<HashMap<_, _>>())
    }
}

fn scalar(value: &Scalar) -> Box<dyn Val + '_> {
    match value {
        Scalar::Text(text) => Box::new(CelString::from(text.as_str())),
        Scalar::Number(number) => Box::new(CelDouble::from(*number)),
        Scalar::Boolean(flag) => Box::new(CelBool::from(*flag)),
    }
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(text) = self.text(name) {
            return Some(CowVal::owned(CelString::from(text)));
        }
        if let Some(number) = self.number(name) {
            return Some(CowVal::owned(CelDouble::from(number)));
        }
        if let Some(integer) = self.integer(name) {
            return Some(CowVal::owned(CelInt::from(integer)));
        }
        if let Some(flag) = self.flag(name) {
            return Some(CowVal::owned(CelBool::from(flag)));
        }
        Some(match name {
            "ip" => CowVal::owned(CelString::from(self.evidence.attempt.ip.to_string())),
            "signals" => CowVal::owned(self.signals()),
            "attributes" => CowVal::owned(self.attributes()),
            _ => return None,
        })
    }
}

/// Two attempts that rules are evaluated on when they are read: one with every value known, and one with none.
pub(super) fn samples() -> &'static [Variables<'static>; 2] {
    static FEATURES: LazyLock<Features> = LazyLock::new(Features::default);
    static ATTRIBUTES: LazyLock<BTreeMap<String, Scalar>> = LazyLock::new(|| {
        let text = |text: &str| Scalar::Text(text.into());
        BTreeMap::from([("text".into(), text("a")), ("number".into(), Scalar::Number(1.0))])
    });
    static FULL: LazyLock<Attempt> = LazyLock::new(|| Attempt {
        user_agent: Some("Mozilla/5.0".into()),
        device_id: Some("d-1".into()),
        country: Some("IE".into()),
        asn: Some(64_500),
        city: Some("Cork".into()),
        latitude: Some(51.9),
        longitude: Some(-8.5),
        browser: Some("Firefox 140.0".into()),
        os: Some("Linux".into()),
        device_type: Some("desktop".into()),
        rtt_ms: Some(20.0),
        ..Attempt::from_ip(std::net::Ipv4Addr::new(192, 0, 2, 1).into())
    });
    static USER: LazyLock<User> = LazyLock::new(|| User { successes: 1, last_success_ms: Some(0), ..User::default() });
    static BARE: LazyLock<Attempt> = LazyLock::new(|| Attempt::from_ip(std::net::Ipv4Addr::UNSPECIFIED.into()));
    static SEEN: LazyLock<[LoginEvidence<'static>; 2]> = LazyLock::new(|| {
        let known = LoginEvidence::of(Some(&USER), &FEATURES, &FULL, DAY_MS);
        [LoginEvidence { attributes: &ATTRIBUTES, ..known }, LoginEvidence::of(None, &FEATURES, &BARE, 0)]
    });
    static SAMPLES: LazyLock<[Variables<'static>; 2]> = LazyLock::new(|| {
        let [full, bare] = &*SEEN;
        [Variables::new(full, Some(0.5), &[]), Variables::new(bare, None, &[])]
    });
    &SAMPLES
}
