//! Reminders as rules: what a policy says, what is due to whom, and the events that announce it.

pub mod announce;
pub mod plan;
pub mod policy;
pub mod risk;
pub mod schedule;
