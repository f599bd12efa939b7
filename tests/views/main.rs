//! What each view makes of each event, and what the plan makes of the rows: tables for the rules, properties for
//! what must hold whatever happens.
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
