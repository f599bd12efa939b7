//! Every metric from the start, at zero.
//!
//! Prometheus computes the number of events as the difference between two samples. A counter that appears with its
//! first event starts at 1, so `increase()` misses that event, and a metric that was never exported looks like a
//! renamed one. So all labels with a closed set of values are exported before anything happens. Labels of partitions
//! follow with the partitions of the process, names of API keys with their first rejected request.

use crate::version::{COMMIT, VERSION};
use foretell_domain::address::Family;
use foretell_domain::remind::plan;
use foretell_domain::score::Level;
use foretell_domain::view::Skip;
use foretell_domain::view::client::SETTLED;
use foretell_enrich::{FILES, GEO_STALE, GEO_UNAVAILABLE};
use foretell_events::Topic;
use foretell_events::codec::CODES;
use foretell_service::http::UNKNOWN_KEY;
use foretell_service::http::problem::Code;
use foretell_telemetry::{
    BUILD_INFO, CACHE_READS, CODE, DEAD_LETTERS_CLOSED, DECISIONS_LOST, DECISIONS_RECORDED, ENRICH_LOADS,
    ENRICH_WARNINGS, EVENTS_ACCEPTED, FAMILY, FIELDS_DROPPED, FILE, FLUSH_SECONDS, HTTP_INFLIGHT, HTTP_PROBLEMS,
    HTTP_REFUSED, HTTP_STREAMS, KEY, KIND, LEVEL, LOG_APPEND_SECONDS, LOG_SYNCS, LOGINS_WITHOUT_NETWORK,
    POLICIES_REFUSED, REASON, REBUILD_DUE, RECORDS, REJECTED, REMINDER_DELAY_SECONDS, REMINDERS, REMINDERS_UNSENT,
    RESTARTS, RESULT, RETRIES, ROWS_WRITTEN, SCORES, SCORES_DEGRADED, SKIPPED, STORE_FORGOT, STORE_READ_SECONDS,
    TOO_LATE, VIEW, VISITS, VISITS_DISPLACED,
};
use metrics::{counter, gauge, histogram};

/// Operations that are retried while a dependency is unreachable, as far as alerts may watch them. Others appear when
/// they first happen.
const REPEATED: [&str; 4] = ["append", "read the log", "read rows", "run a transaction"];
/// Why a due reminder is not sent, by status.
const UNSENT: [(plan::Status, &[&str]); 3] = [
    (plan::Status::Failed, &["expired", "delivery_failed"]),
    (plan::Status::Deferred, &["quiet_hours", "frequency_cap", "grouped"]),
    (
        plan::Status::Suppressed,
        &[
            "cancelled",
            "attended",
            "missed",
            "deleted",
            "booked_after_step",
            "confirmed",
            "no_consented_channel",
            "minimum_notice",
            "quiet_hours",
            "frequency_cap",
            "unknown_appointment",
        ],
    ),
];
/// Exports all metrics that do not depend on the routes that a process serves.
pub(super) fn register() {
    gauge!(BUILD_INFO, "version" => VERSION, "commit" => COMMIT).set(1.0);
    Family::ALL.into_iter().for_each(family);
    events();
    scores();
    reminders();
    for operation in REPEATED {
        counter!(RETRIES, "operation" => operation).increment(0);
    }
    for outcome in ["redriven", "dropped"] {
        counter!(DEAD_LETTERS_CLOSED, "outcome" => outcome).increment(0);
    }
    for code in Code::ALL {
        counter!(HTTP_PROBLEMS, CODE => code.name()).increment(0);
    }
    let unknown = [(KEY, UNKNOWN_KEY), (CODE, Code::Unauthenticated.name())];
    counter!(HTTP_REFUSED, &unknown).increment(0);
    foretell_service::http::zeros::route("none", "GET");
    gauge!(HTTP_INFLIGHT).increment(0.0);
    gauge!(HTTP_STREAMS).increment(0.0);
    drop(histogram!(LOG_APPEND_SECONDS));
    counter!(LOG_SYNCS).increment(0);
    counter!(POLICIES_REFUSED).increment(0);
}

fn family(family: Family) {
    let name = family.name();
    for outcome in ["applied", "skipped", "rejected"] {
        counter!(RECORDS, "family" => name, "outcome" => outcome).increment(0);
    }
    for reason in Skip::ALL {
        counter!(SKIPPED, "family" => name, "reason" => reason.name()).increment(0);
    }
    for code in CODES {
        counter!(REJECTED, "family" => name, "code" => code).increment(0);
    }
    for counted in [RESTARTS, STORE_FORGOT, ROWS_WRITTEN, TOO_LATE] {
        counter!(counted, "family" => name).increment(0);
    }
    gauge!(REBUILD_DUE, "family" => name).increment(0.0);
    drop(histogram!(FLUSH_SECONDS, "family" => name));
    drop(histogram!(STORE_READ_SECONDS, FAMILY => name));
    for view in family.views() {
        for result in ["hit", "miss"] {
            counter!(CACHE_READS, VIEW => view.name(), RESULT => result).increment(0);
        }
    }
}

fn events() {
    for topic in Topic::ALL.into_iter().filter(|topic| *topic != Topic::DeadLetters) {
        counter!(EVENTS_ACCEPTED, FAMILY => topic.name()).increment(0);
        counter!(FIELDS_DROPPED, "family" => topic.name()).increment(0);
    }
    for level in ["asn", "country"] {
        counter!(LOGINS_WITHOUT_NETWORK, "level" => level).increment(0);
    }
    for outcome in SETTLED {
        counter!(VISITS, "outcome" => outcome).increment(0);
    }
    counter!(VISITS_DISPLACED).increment(0);
    for file in FILES {
        for result in ["loaded", "failed"] {
            counter!(ENRICH_LOADS, FILE => file, RESULT => result).increment(0);
        }
    }
    for code in [GEO_UNAVAILABLE, GEO_STALE] {
        counter!(ENRICH_WARNINGS, CODE => code).increment(0);
    }
}

fn scores() {
    for kind in ["login", "appointment"] {
        for level in Level::ALL {
            counter!(SCORES, KIND => kind, LEVEL => level.name()).increment(0);
        }
        counter!(SCORES_DEGRADED, KIND => kind).increment(0);
    }
    counter!(DECISIONS_RECORDED).increment(0);
    for loss in foretell_service::decisions::Loss::ALL {
        counter!(DECISIONS_LOST, REASON => loss.name()).increment(0);
    }
}

fn reminders() {
    for status in [plan::Status::Sent, plan::Status::Withdrawn] {
        counter!(REMINDERS, "status" => status.name()).increment(0);
    }
    for (status, reasons) in UNSENT {
        for reason in reasons {
            counter!(REMINDERS_UNSENT, "status" => status.name(), "reason" => *reason).increment(0);
        }
    }
    drop(histogram!(REMINDER_DELAY_SECONDS));
}
