//! Offline work with histories: read, score, train, calibrate thresholds, simulate and plot.

pub mod calibrate;
pub mod evaluate;
pub mod picture;
pub mod report;
pub mod simulate;
pub mod source;
pub mod train;
