//! Where to put thresholds: what they catch of three attackers, and what people pay for it.
//!
//! ```text
//!  labelled history ─► replay: score each login, fold people's ─► scores of people, scores of attacks
//!      ├─► a curve and a threshold for each attacker, beside those of the baseline "new device or new country"
//!      ├─► how often people of each history size are challenged at it
//!      └─► the thresholds of a policy
//! ```
//!
//! The replay is that of [`crate::evaluate`]: the same fold, the same score. Attacks are scored and not folded, so
//! that neither a history is poisoned nor a signal about many failures helps: what is caught is caught by the first
//! attempt.
//!
//! **What counts.** First logins have no score and are always challenged; they are counted apart and are in none of
//! the shares, as in the publications, which count *re*-authentications. The same holds for attacks on accounts
//! without a history.
//!
//! **Which thresholds follow.** `challenge_at` is the lowest of the attackers' thresholds, so that each of them is
//! caught at the rate that was asked for; that is the targeted one's in every history that was seen. `deny_at` is
//! the lowest score that at most one in 10,000 of people's logins reaches, and never below `challenge_at`: a refusal
//! leaves nothing to prove oneself by, so it is for scores that people hardly ever get.

mod plot;
mod policy;
mod replay;
mod roc;
mod table;
#[cfg(test)]
mod tests;

pub use plot::svg;
pub use policy::File as PolicyFile;
pub use replay::Replayed;
pub use roc::{Point, Roc};

use crate::source::Author;
use roc::Scores;
use serde::Serialize;

/// Sizes of history that re-authentications are counted for: those of the publication.
pub const SIZES: [usize; 4] = [4, 12, 20, 39];
/// Share of people's logins that may be refused.
const DENIED_MAX: f64 = 1.0 / 10_000.0;
/// The baseline's score from which it challenges: one of device and country is new.
const BASELINE_AT: f64 = 0.5;

/// Why nothing can be calibrated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A login does not say who made it.
    #[error(
        "{file}: event {id:?} has no label that says who made it; \
         `foretell simulate logins` writes files that have"
    )]
    Unlabelled {
        /// The file.
        file: String,
        /// The event's id.
        id: String,
    },
    /// No attempt of some attacker, or of people, has a score.
    #[error("no {0} login has a score: take more users, or more days")]
    Nobody(&'static str),
    /// A target that is no share.
    #[error("--target-tpr {0}: a share above 0, at most 1")]
    Target(f64),
    /// The policy file.
    #[error("policy {file}: {detail}")]
    Policy {
        /// The file.
        file: String,
        /// What is wrong.
        detail: String,
    },
}

/// The thresholds of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Thresholds {
    /// See [`foretell_domain::score::login::Policy::challenge_at`].
    pub challenge_at: f64,
    /// See [`foretell_domain::score::login::Policy::deny_at`].
    pub deny_at: f64,
}

/// Challenges among the first logins of accounts that have at least so many.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Paid {
    /// The first so many logins.
    pub logins: usize,
    /// Accounts that have as many.
    pub accounts: usize,
    /// Of the challenges of an account: the median, the mean, and what nine in ten stay within.
    pub median: f64,
    /// See [`Self::median`].
    pub mean: f64,
    /// See [`Self::median`].
    pub p90: f64,
}

/// What the baseline does, and what the score does at the same price.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Compared {
    /// New device or new country.
    pub baseline: Point,
    /// The score, at a threshold that challenges no more of people's logins.
    pub score: Point,
}

/// All about one attacker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// Who.
    pub attacker: Author,
    /// Attempts with a score.
    pub attacks: usize,
    /// Attempts on accounts without a history.
    pub unscored: usize,
    /// The curve of the score.
    pub roc: Roc,
    /// The curve of the baseline.
    pub baseline: Roc,
    /// At the threshold for the target.
    pub at_target: Point,
    /// What people pay at it, by [`SIZES`].
    pub paid: Vec<Paid>,
    /// At the price of the baseline.
    pub compared: Compared,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// The true positive rate that was asked for.
    pub target_tpr: f64,
    /// Logins of people with a score.
    pub logins: usize,
    /// First logins, which have none.
    pub first_logins: usize,
    /// By attacker.
    pub curves: Vec<Curve>,
    /// What the baseline costs, by [`SIZES`].
    pub baseline_paid: Vec<Paid>,
    /// What follows for a policy.
    pub thresholds: Thresholds,
    /// Shares of people's logins at those thresholds that are challenged, and that are denied.
    pub challenged: f64,
    /// See [`Self::challenged`].
    pub denied: f64,
}

impl Calibration {
    /// Of what was replayed, for a true positive rate above 0 and up to 1.
    pub fn new(replayed: &Replayed, target_tpr: f64) -> Result<Self, Error> {
        if !(target_tpr > 0.0 && target_tpr <= 1.0) {
            return Err(Error::Target(target_tpr));
        }
        let people: Vec<f64> = replayed.people.iter().flatten().filter_map(|scored| scored.score).collect();
        if people.is_empty() {
            return Err(Error::Nobody("legitimate"));
        }
        let curve = |attacker| curve(replayed, attacker, target_tpr);
        let curves = Author::ATTACKERS.into_iter().map(curve).collect::<Result<Vec<_>, _>>()?;
        let lowest = curves.iter().filter_map(|curve| curve.at_target.threshold).fold(1.0, f64::min);
        let challenge_at = policy::rounded_down(lowest);
        let all = Scores::new(people.iter().copied(), std::iter::empty());
        let deny_at = policy::rounded_up(all.threshold_sparing(DENIED_MAX)).clamp(challenge_at, 1.0);
        Ok(Self {
            target_tpr,
            logins: people.len(),
            first_logins: replayed.people.iter().flatten().filter(|scored| scored.score.is_none()).count(),
            curves,
            baseline_paid: paid(replayed, |scored| scored.baseline >= BASELINE_AT),
            thresholds: Thresholds { challenge_at, deny_at },
            challenged: all.at(challenge_at).challenged,
            denied: all.at(deny_at).challenged,
        })
    }
}

fn curve(replayed: &Replayed, attacker: Author, target_tpr: f64) -> Result<Curve, Error> {
    let people = || replayed.people.iter().flatten().filter_map(|scored| Some((scored.score?, scored.baseline)));
    let all = || replayed.attacks.iter().filter(|(author, _)| *author == attacker).map(|(_, scored)| scored);
    let attacks = || all().filter_map(|scored| Some((scored.score?, scored.baseline)));
    let scores = Scores::new(people().map(|(score, _)| score), attacks().map(|(score, _)| score));
    let baselines = Scores::new(people().map(|(_, baseline)| baseline), attacks().map(|(_, baseline)| baseline));
    let threshold = scores.threshold_for(target_tpr).ok_or(Error::Nobody(attacker.name()))?;
    let baseline = baselines.at(BASELINE_AT);
    Ok(Curve {
        attacker,
        attacks: attacks().count(),
        unscored: all().filter(|scored| scored.score.is_none()).count(),
        roc: scores.roc(),
        baseline: baselines.roc(),
        at_target: scores.at(threshold),
        paid: paid(replayed, |scored| scored.score.is_some_and(|score| score >= threshold)),
        compared: Compared { baseline, score: scores.at(scores.threshold_sparing(baseline.challenged)) },
    })
}

/// What people pay where `is_challenged` says so; first logins are nobody's re-authentication.
fn paid(replayed: &Replayed, is_challenged: impl Fn(&replay::Scored) -> bool) -> Vec<Paid> {
    let size = |logins: usize| {
        let accounts = replayed.people.iter().filter_map(|all| all.get(..logins));
        let counts = accounts.map(|first| first.iter().filter(|scored| is_challenged(scored)).count());
        let mut counts: Vec<_> = counts.collect();
        counts.sort_unstable();
        let mean = counts.iter().sum::<usize>() as f64 / counts.len().max(1) as f64;
        Paid { logins, accounts: counts.len(), median: quantile(&counts, 0.5), mean, p90: quantile(&counts, 0.9) }
    };
    SIZES.map(size).into()
}

/// The lowest of rising counts that a share of them stays within; the middle of the two in the middle of an even
/// number of them is not taken, because nobody pays half a challenge.
fn quantile(rising: &[usize], share: f64) -> f64 {
    let at = (share * rising.len() as f64).ceil().max(1.0) as usize - 1;
    rising.get(at).map_or(0.0, |count| *count as f64)
}
