//! The contracts of log and store: what each backend promises, and what a caller may do when an operation fails.
//!
//! One conformance suite holds every backend to these promises. The backends in memory are here; those on disk, on
//! Kafka and on Cassandra are crates of their own, and only the binary names them.

pub mod clock;
mod error;
pub mod file;
pub mod log;
pub mod store;

pub use error::{Error, Kind};
