//! Reads reminders from Kafka and prints one line for each, where a real subscriber would send a message.
//!
//! ```sh
//! cargo run --example kafka_subscriber -- localhost:9092 foretell.reminders my-sender ./state
//! ```
//!
//! **Delivery guarantee.** Every reminder is printed at least once, even if the process is killed: the offset is
//! committed after the line. A reminder is printed twice only if the process ends between the line and the moment at
//! which its id is in the file. To lose a reminder rather than send it twice, store the id first. Exactly-once delivery
//! is not possible, because sending a message and storing its id are two steps; it comes close if the provider accepts
//! the id of the event as its idempotency key.
//!
//! The file belongs to one process. Members of a group that share the partitions need a shared store of ids, such as a
//! table with the id as its key.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is its only output")]

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
        // Reminders are announced in transactions: records of a planner that lost its partition are never committed.
        .set("isolation.level", "read_committed")
        // A new group begins with the oldest reminder.
        .set("auto.offset.reset", "earliest")
        // After a kill, the group waits this long before it reassigns the partitions: the minimum that brokers allow by
        // default.
        .set("session.timeout.ms", "6000")
        // Committed below, after the reminder has been printed.
        .set("enable.auto.commit", "false")
        .create()?;
    consumer.subscribe(&[topic])?;
    loop {
        match consumer.recv().await {
            Ok(message) => {
                act(&message, &mut seen)?;
                // If this commit is lost, the reminder arrives again and is recognised by its id.
                consumer.commit_message(&message, CommitMode::Async)?;
            }
            // The client retries on its own.
            Err(error) => eprintln!("waiting for Kafka: {error}"),
        }
    }
}

/// Prints a reminder that was not printed before, and stores its id.
fn act(message: &BorrowedMessage<'_>, seen: &mut Seen) -> Result<(), Box<dyn Error>> {
    // A CloudEvent in binary mode: its attributes are headers, its data is the value.
    let (Some(id), Some(kind)) = (header(message, "ce_id"), header(message, "ce_type")) else { return Ok(()) };
    if seen.contains(id) {
        return Ok(());
    }
    let Ok(data) = serde_json::from_slice(message.payload().unwrap_or_default()) else {
        eprintln!("the record at offset {} of partition {} is not JSON", message.offset(), message.partition());
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
