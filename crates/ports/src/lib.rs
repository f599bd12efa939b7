//! The contracts of log and store: what each backend guarantees, and what a caller may do when an operation fails.
//!
//! One conformance suite tests every backend against these guarantees. The in-memory backends are in this crate; the
//! backends on disk, Kafka and Cassandra are separate crates, and only the binary depends on them.

pub mod clock;
pub mod component;
mod error;
pub mod file;
pub mod log;
pub mod retry;
pub mod store;

pub use error::{Error, Kind};
