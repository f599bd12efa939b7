//! The HTTP API over real connections, real pipelines and a log and store in memory.

mod events;
mod inputs;
mod instance;
mod operation;
mod reminders;
mod scores;
