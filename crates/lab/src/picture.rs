//! What all plots have in common: SVG output, fonts and legends.

use plotters::coord::{CoordTranslate, Shift};
use plotters::prelude::*;

/// The typeface of all texts.
pub(crate) const FONT: &str = "sans-serif";

/// The drawing area.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The result of drawing.
pub type Drawn = Result<(), Box<dyn std::error::Error>>;

/// The legend with the names of the series.
pub(crate) fn legend<'a, C: CoordTranslate>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, C>,
    at: SeriesLabelPosition,
) -> Drawn {
    chart
        .configure_series_labels()
        .position(at)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .legend_area_size(30)
        .label_font((FONT, 14))
        .draw()?;
    Ok(())
}

/// A plot of the given size in pixels; the error is a sentence.
pub fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String, String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&WHITE).map_err(|cause| cause.to_string())?;
        draw(&area).map_err(|cause| cause.to_string())?;
        area.present().map_err(|cause| cause.to_string())?;
    }
    Ok(text)
}
