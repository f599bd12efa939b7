//! How each view folds each event, and what the plan derives from the rows: tables for the rules, properties for what
//! must always hold.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod bounds;
mod build;
mod client;
mod early;
mod examples;
mod golden;
mod merge;
mod outcome;
mod plan;
mod restated;
mod room;
mod sent;
mod settled;
mod steps;
mod user;

/// The repository, which has the catalog and the data of tests.
const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
