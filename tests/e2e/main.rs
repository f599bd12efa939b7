//! The whole of it: the real binary, as real processes over real TCP, on a directory and on Kafka and Cassandra.
//!
//! What one process knows is tested elsewhere. Here stands what only shows from outside: that commands and exit
//! codes are as promised, that a process which is killed at any moment goes on where it was, that both deployments
//! make the same rows of the same facts, and that roles in separate processes are one service.
//!
//! Needs running services and says so: `scripts/services up -k 1 -c 1 -- cargo test --test e2e`.

#![allow(unreachable_pub, reason = "a test program has no public interface")]
#![allow(clippy::print_stdout, reason = "what a failed test shows")]

mod calibrate;
mod commands;
mod crashes;
mod dead_letters;
mod decisions;
mod demo;
mod deployment;
mod enrich;
mod facts;
mod frozen;
mod groups;
mod imports;
mod kill_nine;
mod metrics;
mod mistakes;
mod no_show;
mod older;
mod outages;
mod partitioners;
mod policies;
mod private;
mod process;
mod rebuild;
mod reminded;
mod repartition;
mod repeated;
mod roles;
mod services;
mod story;
mod stream;
mod subscribers;
mod traces;
mod trained;
mod weather;
mod zones;
