//! The guarantees of the two ports, each as a test of its own for every backend: here for the backends in memory.
//!
//! A backend defines how it is created, and `log_promises!` and `store_promises!` test it against every guarantee. What
//! only one backend can show, such as a torn tail, is in its own module. The tests of `foretell-disk` and of the binary
//! include the same suites, for the directory and for the clusters.

mod admin_suite;
mod fixture;
mod log_suite;
mod memory;
mod store_suite;

pub(crate) use fixture::{Fixture, quiet, within};
