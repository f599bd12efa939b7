//! Metrics of the loops: one function per counted event, so that names and labels are defined in one place.

use crate::{
    DEAD_LETTERS_CLOSED, FIELDS_DROPPED, FLUSH_SECONDS, LOG_SYNCS, LOGINS_WITHOUT_NETWORK, REBUILD_DUE, RECORDS,
    REJECTED, REMINDER_DELAY_SECONDS, REMINDERS, REMINDERS_UNSENT, RESTARTS, RETRIES, ROWS_WRITTEN, SKIPPED, STOPPED,
    STORE_FORGOT, TOO_LATE, VISITS, VISITS_DISPLACED,
};
use metrics::{counter, gauge, histogram};
use std::time::Duration;

/// Records were folded, and their rows are acknowledged.
pub fn folded(family: &'static str, applied: u64, skipped: impl Iterator<Item = (&'static str, u64)>) {
    let mut all_skipped = 0;
    for (reason, records) in skipped {
        counter!(SKIPPED, "family" => family, "reason" => reason).increment(records);
        all_skipped += records;
    }
    for (outcome, records) in [("applied", applied), ("skipped", all_skipped)] {
        counter!(RECORDS, "family" => family, "outcome" => outcome).increment(records);
    }
}

/// Unknown fields and attributes were dropped from a new record.
pub fn fields_dropped(family: &'static str, fields: usize) {
    if fields > 0 {
        counter!(FIELDS_DROPPED, "family" => family).increment(fields as u64);
    }
}

/// An event arrived too late to change anything.
pub fn too_late(family: &'static str) {
    counter!(TOO_LATE, "family" => family).increment(1);
}

/// An upcoming visit was dropped for an earlier one.
pub fn displaced() {
    counter!(VISITS_DISPLACED).increment(1);
}

/// The outcome of a visit was folded.
pub fn resolved_as(outcome: &'static str) {
    counter!(VISITS, "outcome" => outcome).increment(1);
}

/// A login lacks a level of its address, because the address was not looked up before the login was logged.
pub fn login_without(level: &'static str) {
    counter!(LOGINS_WITHOUT_NETWORK, "level" => level).increment(1);
}

/// A record became a dead letter.
pub fn rejected(family: &'static str, code: &'static str) {
    counter!(RECORDS, "family" => family, "outcome" => "rejected").increment(1);
    counter!(REJECTED, "family" => family, "code" => code).increment(1);
}

/// A dead letter was redriven or dropped.
pub fn dead_letter_closed(outcome: &'static str) {
    counter!(DEAD_LETTERS_CLOSED, "outcome" => outcome).increment(1);
}

/// A flush was acknowledged.
pub fn flushed(family: &'static str, rows: usize, took: Duration) {
    histogram!(FLUSH_SECONDS, "family" => family).record(took);
    counter!(ROWS_WRITTEN, "family" => family).increment(rows as u64);
}

/// Segment files of the embedded log were synced together.
pub fn synced(files: usize) {
    counter!(LOG_SYNCS).increment(files as u64);
}

/// An operation is repeated.
pub fn retried(operation: &'static str) {
    counter!(RETRIES, "operation" => operation).increment(1);
}

/// A partition starts over.
pub fn restarted(family: &'static str) {
    counter!(RESTARTS, "family" => family).increment(1);
}

/// The store has lost acknowledged writes.
pub fn store_forgot(family: &'static str) {
    counter!(STORE_FORGOT, "family" => family).increment(1);
}

/// Whether the views of a family must be rebuilt before this process can fold or read them.
pub fn rebuild_due(family: &'static str, is_due: bool) {
    gauge!(REBUILD_DUE, "family" => family).set(if is_due { 1.0 } else { 0.0 });
}

/// A partition is folded by this process; creates its gauge of stopped partitions.
pub fn folds(family: &'static str, partition: u32) {
    // Another generation of the partition may be stopped in this process.
    gauge!(STOPPED, "family" => family, "partition" => partition.to_string()).increment(0.0);
}

/// Reports a partition as stopped, as long as it exists.
pub struct Stopped(metrics::Gauge);

impl Stopped {
    /// Reports the partition as stopped from now on.
    pub fn new(family: &'static str, partition: u32) -> Self {
        let gauge = gauge!(STOPPED, "family" => family, "partition" => partition.to_string());
        gauge.set(1.0);
        Self(gauge)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.set(0.0);
    }
}

/// A reminder was due but is not sent.
pub fn unsent(status: &'static str, reason: &str) {
    counter!(REMINDERS_UNSENT, "status" => status, "reason" => reason.to_owned()).increment(1);
}

/// A reminder was sent or withdrawn.
pub fn reminded(status: &'static str) {
    counter!(REMINDERS, "status" => status).increment(1);
}

/// A reminder was sent this long after it was due.
pub fn reminder_delay(delay_ms: i64) {
    histogram!(REMINDER_DELAY_SECONDS).record(delay_ms.max(0) as f64 / 1000.0);
}
