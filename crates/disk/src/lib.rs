//! The embedded log and store: segment files and an LSM tree in one directory, for one process.

pub mod log;
pub mod store;
