//! Plots the calibration of a report: predicted and actual shares of missed visits, for each tenth of the visits.
//!
//! On the diagonal, predictions match outcomes. The bars are Wilson intervals: a point whose bar crosses the diagonal
//! gives no reason to doubt the scores. Both axes end near the data, because no-shows are rare.

use crate::picture::{self, Area, Drawn, FONT};
use foretell_domain::report::no_show::ScoreAccuracy;
use foretell_domain::score::metrics::{Bin, wilson};
use plotters::prelude::*;

const SIZE: (u32, u32) = (700, 700);
/// A colour that people with colour vision deficiency can distinguish from grey (Okabe and Ito).
const COLOUR: RGBColor = RGBColor(0, 114, 178);

/// The plot as SVG; the error is a sentence.
pub fn svg(calibration: &ScoreAccuracy) -> Result<String, String> {
    picture::svg(SIZE, |area| draw(area, calibration))
}

fn draw(area: &Area<'_>, calibration: &ScoreAccuracy) -> Drawn {
    let end = end(&calibration.bins);
    let mut chart = ChartBuilder::on(area)
        .caption("Missed visits: predicted and actual share", (FONT, 22))
        .margin(20)
        .x_label_area_size(50)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..end, 0.0..end)?;
    chart
        .configure_mesh()
        .x_desc("mean score of a tenth of the visits")
        .y_desc("share of them that was missed")
        .x_label_formatter(&percent)
        .y_label_formatter(&percent)
        .label_style((FONT, 14))
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    chart
        .draw_series(LineSeries::new([(0.0, 0.0), (end, end)], BLACK.mix(0.4)))?
        .label("perfect calibration")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 24, y)], BLACK.mix(0.4)));
    chart.draw_series(calibration.bins.iter().map(|bin| {
        let (low, high) = wilson(bin.rate, bin.cases as f64);
        PathElement::new([(bin.mean_score, low), (bin.mean_score, high.min(end))], COLOUR.stroke_width(2))
    }))?;
    chart
        .draw_series(calibration.bins.iter().map(|bin| Circle::new((bin.mean_score, bin.rate), 5, COLOUR.filled())))?
        .label(label(calibration))
        .legend(|(x, y)| Circle::new((x + 12, y), 5, COLOUR.filled()));
    picture::legend(&mut chart, SeriesLabelPosition::UpperLeft)
}

/// The end of both axes: slightly beyond the outermost point or bar.
fn end(bins: &[Bin]) -> f64 {
    let farthest = bins.iter().map(|bin| bin.mean_score.max(wilson(bin.rate, bin.cases as f64).1));
    (farthest.fold(0.1, f64::max) * 1.05).min(1.0)
}

fn label(calibration: &ScoreAccuracy) -> String {
    let metrics = &calibration.metrics;
    let ece = metrics.ece.map_or_else(|| "-".to_owned(), |ece| format!("{ece:.3}"));
    format!("last score before the start, n = {}, ECE {ece}", metrics.cases)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the formatter of an axis")]
fn percent(share: &f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_domain::score::metrics::{Case, Metrics, bins};

    #[test]
    fn a_picture_has_a_point_and_a_bar_for_each_tenth() {
        let cases: Vec<_> = (0..100).map(|n| Case { score: f64::from(n) / 250.0, positive: n % 4 == 0 }).collect();
        let calibration = ScoreAccuracy { metrics: Metrics::of(&cases), bins: bins(&cases) };
        let text = svg(&calibration).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        // The legend adds one of each: the point, and the line.
        assert_eq!(text.matches("<circle").count(), 10 + 1, "{text}");
        assert!(text.contains("n = 100, ECE 0."), "{text}");
        let empty = svg(&ScoreAccuracy::default()).unwrap();
        assert_eq!(empty.matches("<circle").count(), 1, "no visits were scored: only the legend");
    }
}
