//! Moves records: takes events in, folds them into rows, reads rows, follows progress, rebuilds, verifies and repairs.

pub mod dead_letters;
pub mod ingest;
pub mod jobs;
pub mod pipeline;
pub mod progress;
pub mod rebuild;
pub mod repartition;
pub mod rows;
pub mod verify;
