//! Published, real and generated histories of logins: their scores, backtests of them, and the size of their rows.

mod backtest;
mod bounds;
mod golden;
#[path = "../../../../tests/shared/golden.rs"]
mod shared;

/// The histories, which other tests read too.
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data");
