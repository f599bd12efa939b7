//! The complete program: the real binary, as real processes over real TCP, on a directory and on Kafka and Cassandra.
//!
//! What a single process does is tested elsewhere. These tests cover what only shows from outside: that commands and
//! exit codes are as documented, that a process that is killed at any moment continues where it was, that both
//! deployments make the same rows of the same facts, and that roles in separate processes form one service.
//!
//! Requires running services: `scripts/services up -k 1 -c 1 -- cargo test --test e2e`.

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
mod environment;
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
mod zones;
