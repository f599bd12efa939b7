//! Two synthetic login histories with the score that the published notebook gives each row.

use serde::Deserialize;
use std::path::PathBuf;

/// A row of the files; other columns are not needed.
#[derive(Deserialize)]
pub(crate) struct Row {
    pub(crate) index: i64,
    pub(crate) timestamp: jiff::civil::DateTime,
    pub(crate) user_id: String,
    pub(crate) ip: std::net::IpAddr,
    pub(crate) asn: u32,
    pub(crate) country: String,
    pub(crate) ua: String,
    pub(crate) browser: String,
    pub(crate) os: String,
    pub(crate) device_type: String,
    pub(crate) n_user_before: u64,
    pub(crate) score_causal: Option<f64>,
}

/// Largest relative difference between a score and the published one.
pub(crate) const RELATIVE_ERROR_MAX: f64 = 1e-9;
/// The files, and how many rows of each have a score.
pub(crate) const FILES: [(&str, usize); 2] = [("synthetic_seed1_n300.csv", 281), ("synthetic_seed2_n300.csv", 280)];

pub(crate) fn path(name: &str) -> PathBuf {
    [crate::DATA, "rba-golden", name].iter().collect()
}

pub(crate) fn read(name: &str) -> Vec<Row> {
    let mut reader = csv::Reader::from_path(path(name)).expect("the file is committed");
    reader.deserialize().map(|row| row.expect("the columns of the file")).collect()
}
