//! Decisions: returned scores, as records that can be found by their id and counted in a report.

pub mod id;
pub mod record;
pub mod report;
