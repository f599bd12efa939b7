//! The HTTP API over real connections, real pipelines and a log and store in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue panics")]
#![allow(clippy::needless_pass_by_value, reason = "events are written in place")]

mod agenda;
mod cloudevents;
mod connections;
mod contract;
mod cors;
mod dead_letters;
mod decisions;
mod enrich;
mod events;
mod gate;
mod gated;
mod golden;
mod ingest;
mod inputs;
mod instance;
mod limits;
mod models;
mod operation;
mod policies;
mod rebuild;
mod reminders;
mod report;
mod scores;
#[path = "../shared/golden.rs"]
mod shared;
mod stream;
mod tickets;
mod train;
mod verify;
mod visits;

/// Histories that other tests read too.
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
