//! Reminders as rules: the policy, the plan of what is due to each client, and the events that announce it.

pub mod announce;
pub mod plan;
pub mod policy;
pub mod risk;
pub mod schedule;
