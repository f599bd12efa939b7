//! A backtest of real logins: 2,000 rows of the RBA data set (Wiefling, Jørgensen, Thunem, Lo Iacono, CC BY 4.0).

use foretell_domain::score::login::Mode;
use foretell_domain::score::login::signal::settings::Signals;
use foretell_lab::evaluate::{self, EvaluationSummary, LoginOptions};
use foretell_lab::source::{self, SourceFormat};
use serde_json::Value;
use std::path::Path;

fn backtest(mode: Mode) -> (Vec<Value>, EvaluationSummary) {
    let path = Path::new(crate::DATA).join("rba-sample.csv.gz");
    let loaded = source::read(&path, SourceFormat::Rba, "sample").expect("the file is committed");
    let mut options = LoginOptions::default();
    options.score.mode = mode;
    let mut out = Vec::new();
    let summary = evaluate::logins(&loaded, &options, &mut out, &mut |_, _| {}).expect("memory can be written to");
    (out.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect(), summary)
}

#[test]
fn every_row_has_a_line_and_users_with_history_a_score() {
    let own = Signals::default();
    for mode in [Mode::Faithful, Mode::Monotone] {
        let (lines, summary) = backtest(mode);
        assert_eq!((summary.rows, summary.skipped, summary.lines, summary.scored), (2_000, 0, 2_000, 996), "{mode:?}");
        for line in &lines {
            let (score, ratio) = (line["score"].as_f64(), line["likelihood_ratio"].as_f64());
            assert_eq!(score.is_some(), ratio.is_some(), "{line}");
            match score {
                // An address and a network of their own reduce the odds of an attack; everything else increases them.
                Some(score) => {
                    let least = own.own_address.factor * own.own_network.factor * 0.999_999;
                    assert!(score < 1.0 && score / (1.0 - score) >= ratio.unwrap_or(0.0) * least, "{line}");
                }
                None => assert_eq!(line["decision"], "challenge", "{line}"),
            }
        }
        assert_eq!(lines.len(), 2_000);
    }
}

/// The published rule penalises weak matches; the corrected one ranks attack addresses better on the same rows.
#[test]
fn the_monotone_mode_ranks_attacks_better_and_never_scores_higher() {
    let ((faithful, before), (monotone, after)) = (backtest(Mode::Faithful), backtest(Mode::Monotone));
    let auc = |summary: &EvaluationSummary| {
        let attack = &summary.measures[0];
        assert_eq!((attack.name, attack.metrics.cases, attack.metrics.positives), ("attack address", 996, 110));
        attack.metrics.roc_auc.expect("both classes are there")
    };
    assert!(auc(&before) > 0.54 && auc(&after) > 0.59, "{} {}", auc(&before), auc(&after));
    let ratios = |line: &Value| line["likelihood_ratio"].as_f64().unwrap_or(0.0);
    for (before, after) in faithful.iter().zip(&monotone) {
        assert!(ratios(after) <= ratios(before) * (1.0 + 1e-12), "{before} {after}");
    }
}
