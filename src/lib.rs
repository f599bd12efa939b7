//! Foretell: real-time risk scores from materialized views.
//!
//! One equation carries the design: **`rows(view) = fold(log)`**. Consumers keep it record by record, rows and
//! checkpoint move together, scores read its left side, and the simulation checks it after every crash.
//!
//! A record meets the modules in this order: [`source`] or [`http`], [`event`], [`log`], [`pipeline`], [`view`],
//! [`store`], [`rows`], [`score`], [`remind`]. [`app`] alone names backends and puts the parts together; the pure
//! core ([`event`], [`view`], [`score`], [`remind::plan`]) knows no clock and no I/O, which a test checks. What can never
//! be folded goes to the [`dead`] letters instead. Scores that were given go to a topic of [`decisions`], where nothing
//! is folded from them.

pub mod app;
pub mod assess;
pub mod calibrate;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dead;
pub mod decisions;
pub mod demo;
pub mod document;
pub mod enrich;
pub mod evaluate;
pub mod event;
pub mod file;
#[doc(hidden)]
pub mod fuzz;
pub mod http;
pub mod log;
pub mod ops;
pub mod picture;
pub mod pipeline;
pub mod policies;
pub mod port;
pub mod progress;
pub mod rebuild;
pub mod remind;
pub mod repartition;
pub mod report;
pub mod room;
pub mod rows;
pub mod score;
pub mod simulate;
pub mod source;
pub mod store;
pub mod suggest;
pub mod telemetry;
pub mod train;
pub mod verify;
pub mod version;
pub mod view;
