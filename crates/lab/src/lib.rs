//! Histories offline: read them, score them, train on them, calibrate thresholds, simulate and plot.

pub mod calibrate;
pub mod evaluate;
pub mod picture;
pub mod report;
pub mod simulate;
pub mod source;
pub mod train;
