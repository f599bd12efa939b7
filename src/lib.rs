//! The service as a program: command line, settings, and the composition of all parts.
//!
//! One equation carries the design: **`rows(view) = fold(log)`**. Consumers keep it record by record, rows and
//! checkpoint move together, scores read its left side, and the simulation checks it after every crash.
//!
//! The parts are crates of their own; [`app`] alone names the backends and puts them together.

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
