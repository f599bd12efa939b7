//! The likelihood ratio: how the address and the client software compare with the logins of the user and of all users.

use super::{LoginEvidence, Mode};
use crate::score::{Reason, ReasonCode};
use crate::view::feature::FeatureLevel;
use crate::view::user::User;

/// The ratio of a feature if none of its levels matches the user's history.
pub(crate) const UNKNOWN_RATIO: f64 = 4.0;

/// Levels of the address with their weights, the strongest first.
pub(super) const ADDRESS: &[(FeatureLevel, f64)] =
    &[(FeatureLevel::Ip, 0.6), (FeatureLevel::Asn, 0.3), (FeatureLevel::Country, 0.1)];
/// Levels of the client software with their weights, the strongest first.
pub(super) const CLIENT: &[(FeatureLevel, f64)] = &[
    (FeatureLevel::UserAgent, 0.538_665_384_055_135_9),
    (FeatureLevel::Browser, 0.268_045_149_862_566_6),
    (FeatureLevel::Os, 0.188_182_951_001_095_36),
    (FeatureLevel::DeviceType, 0.005_106_515_081_202_152_5),
];

/// The totals that both features are compared with.
pub(super) struct Base<'a> {
    evidence: &'a LoginEvidence<'a>,
    user: &'a User,
    /// `N`
    logins: f64,
    /// `U`
    users: f64,
    /// `N_u`
    own: f64,
}

impl<'a> Base<'a> {
    pub(super) fn of(evidence: &'a LoginEvidence<'a>, user: &'a User) -> Self {
        let totals = evidence.features.get(FeatureLevel::All);
        // The rows are read one after the other, so the user's row may be newer than the totals.
        let logins = totals.map_or(0, |totals| totals.successes).max(user.successes);
        let users = totals.map_or(0, |totals| totals.first_successes).max(1);
        Self { evidence, user, logins: logins as f64, users: users as f64, own: user.successes as f64 }
    }

    pub(super) fn prior(&self) -> f64 {
        self.logins / (self.users * self.own)
    }

    pub(super) fn reason(&self) -> Reason {
        let times = if self.own == 1.0 { "login" } else { "logins" };
        let average = self.logins / self.users;
        let text = format!("The account has {} successful {times}; the average account has {average:.1}.", self.own);
        Reason::new(ReasonCode::History, self.prior().ln(), text)
    }

    pub(super) fn compare(&self, feature: &[(FeatureLevel, f64)], mode: Mode) -> Comparison {
        let mut terms = Vec::with_capacity(feature.len());
        for (rank, (level, weight)) in feature.iter().enumerate() {
            let Some(value) = level.value(self.evidence.attempt) else { continue };
            let own = self.user.count(*level, &value);
            let all_users = self.evidence.features.successes(*level).max(u64::from(own)) as f64;
            let global = if rank == 0 { self.smoothed(*level, all_users, feature) } else { all_users / self.logins };
            let local = f64::from(own) / self.own;
            terms.push(Term { level: *level, weight: *weight, global: weight * global, local: weight * local });
        }
        let ratio = match mode {
            _ if terms.is_empty() => 1.0,
            Mode::Faithful => faithful(&terms),
            Mode::Monotone => monotone(&terms),
        };
        Comparison { ratio, terms }
    }

    /// How likely the whole value is, with some probability reserved for values never seen before.
    fn smoothed(&self, top: FeatureLevel, all_users: f64, feature: &[(FeatureLevel, f64)]) -> f64 {
        let features = self.evidence.features;
        let unseen = features.distinct_below(FeatureLevel::All, feature);
        let inner = if all_users > 0.0 { all_users / (all_users + features.distinct_below(top, feature)) } else { 1.0 };
        inner * all_users.max(1.0) / (self.logins + unseen)
    }
}

/// A level of a feature for which the attempt has a value.
struct Term {
    level: FeatureLevel,
    weight: f64,
    /// Weighted share of all users' logins.
    global: f64,
    /// Weighted share of the user's logins.
    local: f64,
}

fn quotient(terms: &[Term]) -> f64 {
    let local: f64 = terms.iter().map(|term| term.local).sum();
    if local > 0.0 { terms.iter().map(|term| term.global).sum::<f64>() / local } else { UNKNOWN_RATIO }
}

fn faithful(terms: &[Term]) -> f64 {
    quotient(terms)
}

/// The smallest quotient of a matched level and the levels below it; levels above a matched one do not count.
fn monotone(terms: &[Term]) -> f64 {
    let matched = (0..terms.len()).filter(|at| terms[*at].local > 0.0);
    matched.map(|at| quotient(&terms[at..])).fold(UNKNOWN_RATIO, f64::min)
}

/// How a feature of the attempt compares with the user's history.
pub(super) struct Comparison {
    /// g/l
    pub(super) ratio: f64,
    terms: Vec<Term>,
}

impl Comparison {
    /// One reason for each of the strongest levels that do not match, up to the first that does; `codes` names them,
    /// the strongest first. Each gets a share of the effect by its weight.
    pub(super) fn reasons(&self, codes: &[ReasonCode], known: ReasonCode) -> Vec<Reason> {
        let effect = self.ratio.ln();
        let new: Vec<_> = self.new_levels(codes).collect();
        let weights: f64 = new.iter().map(|(_, weight)| weight).sum();
        if self.terms.is_empty() {
            return Vec::new();
        }
        if new.is_empty() {
            let described = describe(&known);
            return vec![Reason::new(known, effect, described)];
        }
        let reason = |(code, weight): (ReasonCode, f64)| {
            let described = describe(&code);
            Reason::new(code, effect * weight / weights, described)
        };
        new.into_iter().map(reason).collect()
    }

    fn new_levels(&self, codes: &[ReasonCode]) -> impl Iterator<Item = (ReasonCode, f64)> {
        let new = self.terms.iter().take_while(|term| term.local == 0.0);
        new.filter_map(|term| Some((code_of(term.level).filter(|code| codes.contains(code))?, term.weight)))
    }
}

fn code_of(level: FeatureLevel) -> Option<ReasonCode> {
    match level {
        FeatureLevel::Ip => Some(ReasonCode::NewIp),
        FeatureLevel::Asn => Some(ReasonCode::NewNetwork),
        FeatureLevel::UserAgent => Some(ReasonCode::NewUserAgent),
        _ => None,
    }
}

fn describe(code: &ReasonCode) -> &'static str {
    match code {
        ReasonCode::NewIp => "The user has never logged in from this address.",
        ReasonCode::NewNetwork => "The user has never logged in from this network.",
        ReasonCode::NewUserAgent => "The user has never logged in with this browser and version.",
        ReasonCode::KnownIp => "The address matches the user's earlier logins.",
        _ => "The browser and operating system match the user's earlier logins.",
    }
}
