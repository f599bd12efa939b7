//! Foretell: real-time risk scores from materialized views.
//!
//! One equation carries the design: **`rows(view) = fold(log)`**. Consumers keep it record by record, rows and
//! checkpoint move together, scores read its left side, and the simulation checks it after every crash.
//!
//! The modules stand in the order in which a record meets them.

pub mod app;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod evaluate;
pub mod event;
pub mod http;
pub mod log;
pub mod meter;
pub mod ops;
pub mod pipeline;
pub mod port;
pub mod progress;
pub mod remind;
pub mod rows;
pub mod score;
pub mod source;
pub mod store;
pub mod telemetry;
pub mod view;
