//! What facts mean: folds, scores and plans, as pure functions.
//!
//! ```text
//!   Event ─► view: fold ─► rows ─► score: how risky, and why
//!                              └─► remind: what is due to whom
//! ```
//!
//! Nothing here uses a clock, I/O, a runtime or randomness: what a function needs is in its arguments. So repeating a
//! fold gives the same rows, and each rule can be tested with a table.

pub mod address;
pub mod dead;
pub mod decision;
pub mod pointer;
pub mod remind;
pub mod report;
pub mod score;
pub mod view;
