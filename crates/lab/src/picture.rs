//! Pictures as SVG: what every plot of the program has in common.

use plotters::coord::{CoordTranslate, Shift};
use plotters::prelude::*;

/// The typeface of all texts.
pub const FONT: &str = "sans-serif";

/// What is drawn on.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// How drawing went.
pub type Drawn = Result<(), Box<dyn std::error::Error>>;

/// What the series are called, in a box of its own.
pub fn legend<'a, C: CoordTranslate>(
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

/// A picture of a size in pixels; the error is a sentence.
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
