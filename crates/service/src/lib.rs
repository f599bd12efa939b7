//! What runs on the engine: the HTTP API, reminders, decisions and policies.

pub mod assess;
pub mod decisions;
pub mod http;
pub mod instance;
pub mod limiter;
pub mod policies;
pub mod ports;
mod refreshed;
pub mod remind;
pub mod report;
