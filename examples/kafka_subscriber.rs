//! Prints reminders from Kafka, each once: a line where another subscriber would send a message.
//!
//! ```sh
//! cargo run --example kafka_subscriber -- localhost:9092 foretell.reminders my-sender ./state
//! ```
//!
//! **What it promises.** Every reminder is printed at least once, whenever it is killed: the offset is committed behind
//! the line. It is printed twice only if the process ends between the line and the moment at which its id is in the
//! file; whoever would rather lose a reminder than send one twice remembers first and acts then. Exactly once is not to
//! be had, because nobody can send a message and remember it in one step. What comes close is to hand the id of the
//! event to the provider as its idempotency key.
//!
//! The file belongs to one process. Members of one group that share the partitions need a place for ids that they share
//! as well, such as a table whose key is the id.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "lines are all that it does")]

#[path = "shared/reminder.rs"]
mod reminder;
#[path = "shared/seen.rs"]
mod seen;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use seen::Seen;
use std::error::Error;
use std::path::PathBuf;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, topic, group, state] = arguments.as_slice() else {
        return Err("usage: kafka_subscriber BROKERS TOPIC GROUP STATE_DIRECTORY".into());
    };
    std::fs::create_dir_all(state)?;
    let mut seen = Seen::open(&PathBuf::from(state).join("seen"))?;
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        // Reminders are announced in transactions: what a planner wrote that had lost its partition never happened.
        .set("isolation.level", "read_committed")
        // A group that is new begins with the oldest reminder.
        .set("auto.offset.reset", "earliest")
        // When it is killed, the group waits so long before its partitions are given out again: the least that brokers
        // allow by default.
        .set("session.timeout.ms", "6000")
        // Committed below, when it is done.
        .set("enable.auto.commit", "false")
        .create()?;
    consumer.subscribe(&[topic])?;
    loop {
        match consumer.recv().await {
            Ok(message) => {
                act(&message, &mut seen)?;
                // Everything up to here is done. If this is lost, it comes again, and is known.
                consumer.commit_message(&message, CommitMode::Async)?;
            }
            // The client goes on trying by itself.
            Err(error) => eprintln!("waiting for Kafka: {error}"),
        }
    }
}

/// Prints what was not printed before, and remembers it.
fn act(message: &BorrowedMessage<'_>, seen: &mut Seen) -> Result<(), Box<dyn Error>> {
    // A CloudEvent in binary mode: its attributes are headers, its data is the value.
    let (Some(id), Some(kind)) = (header(message, "ce_id"), header(message, "ce_type")) else { return Ok(()) };
    if seen.contains(id) {
        return Ok(());
    }
    let Ok(data) = serde_json::from_slice(message.payload().unwrap_or_default()) else {
        eprintln!("no JSON at offset {} of partition {}", message.offset(), message.partition());
        return Ok(());
    };
    if let Some(line) = reminder::line(kind, &data) {
        println!("{line}");
        seen.insert(id)?;
    }
    Ok(())
}

fn header<'a>(message: &'a BorrowedMessage<'_>, name: &str) -> Option<&'a str> {
    let header = message.headers()?.iter().find(|header| header.key == name)?;
    std::str::from_utf8(header.value?).ok()
}
