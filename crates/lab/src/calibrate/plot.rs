//! Plots the curves of the score for each attacker, and the baseline.
//!
//! The share of users' logins has a logarithmic axis, because all useful values are small. The baseline consists of two
//! points instead of a curve: new device and new country, and either of them.

use super::{CalibrationResult, Curve, Point, table};
use crate::picture::{self, Area, Drawn, FONT};
use plotters::prelude::*;

const SIZE: (u32, u32) = (900, 600);
/// The start of the logarithmic axis: one login in two thousand.
const CHALLENGED_MIN: f64 = 0.0005;
/// Colours that people with colour vision deficiency can distinguish (Okabe and Ito).
const COLOURS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115)];

/// The plot as SVG; the error is a sentence.
pub fn svg(calibration: &CalibrationResult) -> Result<String, String> {
    picture::svg(SIZE, |area| draw(area, calibration))
}

fn draw(area: &Area<'_>, calibration: &CalibrationResult) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .caption("Challenged attacks, and challenged users", (FONT, 22))
        .margin(20)
        .x_label_area_size(50)
        .y_label_area_size(60)
        .build_cartesian_2d((CHALLENGED_MIN..1.0).log_scale(), 0.0..1.0)?;
    chart
        .configure_mesh()
        .x_desc("share of users' logins that are challenged (logarithmic)")
        .y_desc("share of attacks that are challenged")
        .x_label_formatter(&|share| format!("{} %", share * 100.0))
        .y_label_formatter(&|share| format!("{:.0} %", share * 100.0))
        .label_style((FONT, 14))
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    for (Curve { attacker, roc, baseline, .. }, colour) in calibration.curves.iter().zip(COLOURS) {
        let auc = table::area(roc.auc);
        chart
            .draw_series(LineSeries::new(visible(&roc.points), colour.stroke_width(2)))?
            .label(format!("{}: score, area {auc}", attacker.name()))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(2)));
        let points = visible(&baseline.points[1..baseline.points.len().max(2) - 1]);
        chart
            .draw_series(points.into_iter().map(|point| Circle::new(point, 5, colour.stroke_width(2))))?
            .label(format!("{}: the baseline", attacker.name()))
            .legend(move |(x, y)| Circle::new((x + 12, y), 5, colour.stroke_width(2)));
    }
    picture::legend(&mut chart, SeriesLabelPosition::LowerRight)
}

/// The part of a curve within the plot.
fn visible(points: &[Point]) -> Vec<(f64, f64)> {
    points.iter().map(|point| (point.challenged.max(CHALLENGED_MIN), point.caught)).collect()
}
