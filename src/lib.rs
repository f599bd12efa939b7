//! The service as a program: command line, settings, and the composition of all parts.
//!
//! The design rests on one equation: **`rows(view) = fold(log)`**. Pipelines maintain it record by record, rows and
//! checkpoint advance together, scores read its left side, and the simulation verifies it after every crash.
//!
//! The parts are separate crates; only [`app`] names the backends and combines them.

pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
pub mod ops;
pub mod telemetry;
pub mod version;
