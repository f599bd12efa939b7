//! Pictures as SVG: what every plot of the program has in common.

use plotters::coord::Shift;
use plotters::prelude::*;

/// The typeface of all texts.
pub const FONT: &str = "sans-serif";

/// What is drawn on.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// How drawing went.
pub type Drawn = Result<(), Box<dyn std::error::Error>>;

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
