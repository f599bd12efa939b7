//! Finds login thresholds: the share of three kinds of attacks that they catch, and how often they challenge users.
//!
//! ```text
//!  labelled history ─► replay: score each login, fold only the users' ─► scores of users, scores of attacks
//!      ├─► a curve and a threshold for each attacker, compared with the baseline "new device or new country"
//!      ├─► how often users with histories of each size are challenged at it
//!      └─► the thresholds of a policy
//! ```
//!
//! The replay is that of [`crate::evaluate`]: the same fold and the same score. Attacks are scored but not folded, so
//! that they neither poison a history nor trigger a signal about many failures: what is caught is caught at the first
//! attempt.
//!
//! **What counts.** First logins have no score and are always challenged. They are counted separately and excluded from
//! all shares, as in the publications, which count *re*-authentications. The same holds for attacks on accounts
//! without a history.
//!
//! **The resulting thresholds.** `challenge_at` is the lowest of the attackers' thresholds, so that each attacker is
//! caught at the requested rate; in every history so far it is that of the targeted attacker. `deny_at` is the lowest
//! score that at most one in 10,000 logins of users reaches, and never below `challenge_at`: a denied user cannot prove
//! their identity, so it is reserved for scores that users hardly ever get.

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

/// Sizes of history for which re-authentications are counted, as in the publication.
pub(crate) const SIZES: [usize; 4] = [4, 12, 20, 39];
/// Share of users' logins that may be denied.
const DENIED_MAX: f64 = 1.0 / 10_000.0;
/// The baseline score from which it challenges: device or country is new.
const BASELINE_AT: f64 = 0.5;

/// Why a calibration is impossible.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A login has no label.
    #[error("{file}: event {id:?} has no label; `foretell simulate logins` writes labelled files")]
    Unlabelled {
        /// The file.
        file: String,
        /// The event's id.
        id: String,
    },
    /// None of an attacker's attempts, or of the users' logins, has a score.
    #[error("no {0} login has a score: use more users or more days")]
    NoScores(&'static str),
    /// A target outside of its range.
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
pub struct PolicyThresholds {
    /// See [`foretell_domain::score::login::LoginPolicy::challenge_at`].
    pub challenge_at: f64,
    /// See [`foretell_domain::score::login::LoginPolicy::deny_at`].
    pub deny_at: f64,
}

/// Challenges among the first logins of accounts that have at least this many.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Paid {
    /// The number of first logins.
    pub logins: usize,
    /// Accounts with at least this many logins.
    pub accounts: usize,
    /// Challenges per account: the median, the mean, and the 90th percentile.
    pub median: f64,
    /// See [`Self::median`].
    pub mean: f64,
    /// See [`Self::median`].
    pub p90: f64,
}

/// The baseline, and the score at the same rate of challenges.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BaselineComparison {
    /// New device or new country.
    pub baseline: Point,
    /// The score, at a threshold that challenges no more of the users' logins.
    pub score: Point,
}

/// The results for one attacker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// The attacker.
    pub attacker: Author,
    /// Attempts with a score.
    pub attacks: usize,
    /// Attempts on accounts without a history.
    pub unscored: usize,
    /// The curve of the score.
    pub roc: Roc,
    /// The curve of the baseline.
    pub baseline: Roc,
    /// The point at the target rate.
    pub at_target: Point,
    /// Challenges of users at that point, by [`SIZES`].
    pub paid: Vec<Paid>,
    /// The comparison at the challenge rate of the baseline.
    pub compared: BaselineComparison,
}

/// The result of a calibration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CalibrationResult {
    /// The requested true positive rate.
    pub target_tpr: f64,
    /// Logins of users with a score.
    pub logins: usize,
    /// First logins, which have no score.
    pub first_logins: usize,
    /// By attacker.
    pub curves: Vec<Curve>,
    /// Challenges of users by the baseline, by [`SIZES`].
    pub baseline_paid: Vec<Paid>,
    /// The thresholds for a policy.
    pub thresholds: PolicyThresholds,
    /// Shares of the users' logins that are challenged and denied at those thresholds.
    pub challenged: f64,
    /// See [`Self::challenged`].
    pub denied: f64,
}

impl CalibrationResult {
    /// Calibrates from a replay, for a true positive rate above 0 and up to 1.
    pub fn new(replayed: &Replayed, target_tpr: f64) -> Result<Self, Error> {
        if !(target_tpr > 0.0 && target_tpr <= 1.0) {
            return Err(Error::Target(target_tpr));
        }
        let people: Vec<f64> = replayed.people.iter().flatten().filter_map(|scored| scored.score).collect();
        if people.is_empty() {
            return Err(Error::NoScores("legitimate"));
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
            thresholds: PolicyThresholds { challenge_at, deny_at },
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
    let threshold = scores.threshold_for(target_tpr).ok_or(Error::NoScores(attacker.name()))?;
    let baseline = baselines.at(BASELINE_AT);
    Ok(Curve {
        attacker,
        attacks: attacks().count(),
        unscored: all().filter(|scored| scored.score.is_none()).count(),
        roc: scores.roc(),
        baseline: baselines.roc(),
        at_target: scores.at(threshold),
        paid: paid(replayed, |scored| scored.score.is_some_and(|score| score >= threshold)),
        compared: BaselineComparison { baseline, score: scores.at(scores.threshold_sparing(baseline.challenged)) },
    })
}

/// Challenges of users, as decided by `is_challenged`; first logins are no re-authentications.
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

/// The lowest of the rising counts that this share of them does not exceed. It does not interpolate, because half a
/// challenge is impossible.
fn quantile(rising: &[usize], share: f64) -> f64 {
    let at = (share * rising.len() as f64).ceil().max(1.0) as usize - 1;
    rising.get(at).map_or(0.0, |count| *count as f64)
}
