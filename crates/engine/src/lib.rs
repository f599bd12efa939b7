//! The engine: accepts events, folds them into rows, reads rows, tracks progress, rebuilds, verifies and repairs.

pub mod dead_letters;
pub mod ingest;
pub mod jobs;
pub mod pipeline;
pub mod progress;
pub mod rebuild;
pub mod repartition;
pub mod rows;
pub mod verify;
