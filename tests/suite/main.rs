//! The guarantees of the two ports for Kafka and Cassandra, which must be running.

#[path = "../../crates/ports/tests/suite/admin_suite.rs"]
mod admin_suite;
mod cluster;
#[path = "../../crates/ports/tests/suite/fixture.rs"]
mod fixture;
#[path = "../../crates/ports/tests/suite/log_suite.rs"]
mod log_suite;
#[path = "../../crates/ports/tests/suite/store_suite.rs"]
mod store_suite;

pub(crate) use fixture::{Fixture, quiet, within};
