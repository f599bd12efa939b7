//! Formats the result as tables.

use super::{CalibrationResult, Curve, Paid, Point};
use std::fmt;

impl fmt::Display for CalibrationResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { logins, first_logins, target_tpr, .. } = self;
        writeln!(
            f,
            "{logins} logins of users with a score; {first_logins} first logins have none: they are always challenged \
             and,"
        )?;
        writeln!(f, "like attacks on accounts without a history, not counted below")?;
        writeln!(f)?;
        writeln!(f, "thresholds that catch {} of the attacks", percent(*target_tpr))?;
        let heads = ["attacker", "attacks", "no score", "ROC AUC", "threshold", "caught", "users challenged"];
        let [attacker, attacks, unscored, auc, threshold, caught, challenged] = heads;
        writeln!(f, "{attacker:<12}{attacks:>9}{unscored:>10}{auc:>9}{threshold:>12}{caught:>9}{challenged:>19}")?;
        for Curve { attacker, attacks, unscored, roc, at_target, .. } in &self.curves {
            let auc = area(roc.auc);
            let threshold = at_target.threshold.map_or_else(|| "-".to_owned(), |at| format!("{at:.6}"));
            let (caught, challenged) = (percent(at_target.caught), percent(at_target.challenged));
            let name = attacker.name();
            writeln!(f, "{name:<12}{attacks:>9}{unscored:>10}{auc:>9}{threshold:>12}{caught:>9}{challenged:>19}")?;
        }
        writeln!(f)?;
        self.fmt_paid(f)?;
        writeln!(f)?;
        self.fmt_compared(f)?;
        writeln!(f)?;
        let (challenged, denied) = (percent(self.challenged), percent(self.denied));
        writeln!(f, "challenge_at = {}  # {challenged} of users' logins", self.thresholds.challenge_at)?;
        writeln!(f, "deny_at = {}  # {denied}", self.thresholds.deny_at)
    }
}

impl CalibrationResult {
    fn fmt_paid(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "re-authentications among the first logins of an account: median (mean, 90th percentile)")?;
        let heads = self.baseline_paid.iter().map(|paid| format!("{} logins, {} accounts", paid.logins, paid.accounts));
        writeln!(f, "{:<12}{}", "attacker", heads.map(|head| format!("{head:>26}")).collect::<String>())?;
        for Curve { attacker, paid, .. } in &self.curves {
            writeln!(f, "{:<12}{}", attacker.name(), paid_cells(paid))?;
        }
        writeln!(f, "{:<12}{}", "the baseline", paid_cells(&self.baseline_paid))
    }

    fn fmt_compared(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "the baseline \"new device or new country\", and the score at the threshold that challenges no more users"
        )?;
        let heads =
            ["attacker", "users challenged", "caught by the baseline", "by the score", "area of the baseline", "score"];
        let [attacker, challenged, baseline, score, baseline_auc, auc] = heads;
        writeln!(f, "{attacker:<12}{challenged:>19}{baseline:>24}{score:>14}{baseline_auc:>22}{auc:>9}")?;
        for Curve { attacker, compared, baseline, roc, .. } in &self.curves {
            let Point { challenged, caught, .. } = compared.baseline;
            let [challenged, by_baseline, by_score] = [challenged, caught, compared.score.caught].map(percent);
            let [baseline_auc, auc] = [baseline, roc].map(|roc| area(roc.auc));
            let name = attacker.name();
            writeln!(f, "{name:<12}{challenged:>19}{by_baseline:>24}{by_score:>14}{baseline_auc:>22}{auc:>9}")?;
        }
        Ok(())
    }
}

fn paid_cells(paid: &[Paid]) -> String {
    let cell = |Paid { median, mean, p90, .. }: &Paid| format!("{median} ({mean:.1}, {p90})");
    paid.iter().map(|paid| format!("{:>26}", cell(paid))).collect()
}

pub(super) fn area(auc: Option<f64>) -> String {
    auc.map_or_else(|| "-".to_owned(), |auc| format!("{auc:.4}"))
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}
