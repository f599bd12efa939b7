//! The guarantees of the two ports for the backends on disk, and what can happen to a directory.

#[path = "../../../ports/tests/suite/admin_suite.rs"]
mod admin_suite;
mod disk;
#[path = "../../../ports/tests/suite/fixture.rs"]
mod fixture;
#[path = "../../../ports/tests/suite/log_suite.rs"]
mod log_suite;
#[path = "../../../ports/tests/suite/store_suite.rs"]
mod store_suite;

pub(crate) use fixture::{Fixture, quiet, within};
