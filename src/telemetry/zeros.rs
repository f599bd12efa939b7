//! Every metric from the start, at zero.
//!
//! Prometheus sees an event as the difference between two samples. A counter that appears with its first event begins
//! at 1, so `increase()` misses that event, and a metric that was never exported looks like one that was renamed. So
//! all labels whose values are a closed set are exported before anything happens. Labels of partitions follow with the
//! partitions of the process, names of API keys with their first refusal.

use super::meter;
use crate::enrich::{FILES, GEO_STALE, GEO_UNAVAILABLE};
use crate::event::Topic;
use crate::event::codec::CODES;
use crate::http::UNKNOWN_KEY;
use crate::http::problem::Code;
use crate::remind::plan;
use crate::score::Level;
use crate::store::{Family, View};
use crate::version::{COMMIT, VERSION};
use crate::view::Skip;
use crate::view::client::SETTLED;
use metrics::{counter, gauge, histogram};
use utoipa::openapi::OpenApi;

/// Operations that are repeated while a dependency is away, where an alert may watch them. Others follow as they happen.
const REPEATED: [&str; 4] = ["append", "read the log", "read rows", "run a transaction"];
/// Why a reminder that was due is not sent, by status.
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
/// Statuses of answers that alerts watch.
const FAILURES: [&str; 2] = ["500", "503"];

/// Exports what does not depend on the routes that a process serves.
pub(super) fn register() {
    gauge!(super::BUILD_INFO, "version" => VERSION, "commit" => COMMIT).set(1.0);
    Family::ALL.into_iter().for_each(family);
    events();
    scores();
    reminders();
    for operation in REPEATED {
        counter!(meter::RETRIES, "operation" => operation).increment(0);
    }
    for outcome in ["redriven", "dropped"] {
        counter!(meter::DEAD_LETTERS_CLOSED, "outcome" => outcome).increment(0);
    }
    for code in Code::ALL {
        counter!(super::HTTP_PROBLEMS, super::CODE => code.name()).increment(0);
    }
    let unknown = [(super::KEY, UNKNOWN_KEY), (super::CODE, Code::Unauthenticated.name())];
    counter!(super::HTTP_REFUSED, &unknown).increment(0);
    route("none", "GET");
    gauge!(super::HTTP_INFLIGHT).increment(0.0);
    gauge!(super::HTTP_STREAMS).increment(0.0);
    drop(histogram!(super::LOG_APPEND_SECONDS));
    counter!(meter::LOG_SYNCS).increment(0);
    counter!(super::POLICIES_REFUSED).increment(0);
}

fn family(family: Family) {
    let name = family.name();
    for outcome in ["applied", "skipped", "rejected"] {
        counter!(meter::RECORDS, "family" => name, "outcome" => outcome).increment(0);
    }
    for reason in Skip::ALL {
        counter!(meter::SKIPPED, "family" => name, "reason" => reason.name()).increment(0);
    }
    for code in CODES {
        counter!(meter::REJECTED, "family" => name, "code" => code).increment(0);
    }
    for counted in [meter::RESTARTS, meter::STORE_FORGOT, meter::ROWS_WRITTEN, meter::TOO_LATE] {
        counter!(counted, "family" => name).increment(0);
    }
    gauge!(meter::REBUILD_DUE, "family" => name).increment(0.0);
    drop(histogram!(meter::FLUSH_SECONDS, "family" => name));
    drop(histogram!(super::STORE_READ_SECONDS, super::FAMILY => name));
    for view in View::ALL.into_iter().filter(|view| view.family() == family) {
        for result in ["hit", "miss"] {
            counter!(super::CACHE_READS, super::VIEW => view.name(), super::RESULT => result).increment(0);
        }
    }
}

fn events() {
    for topic in Topic::ALL.into_iter().filter(|topic| *topic != Topic::DeadLetters) {
        counter!(super::EVENTS_ACCEPTED, super::FAMILY => topic.name()).increment(0);
        counter!(meter::FIELDS_DROPPED, "family" => topic.name()).increment(0);
    }
    for level in ["asn", "country"] {
        counter!(meter::LOGINS_WITHOUT_NETWORK, "level" => level).increment(0);
    }
    for outcome in SETTLED {
        counter!(meter::VISITS, "outcome" => outcome).increment(0);
    }
    counter!(meter::VISITS_DISPLACED).increment(0);
    for file in FILES {
        for result in ["loaded", "failed"] {
            counter!(super::ENRICH_LOADS, super::FILE => file, super::RESULT => result).increment(0);
        }
    }
    for code in [GEO_UNAVAILABLE, GEO_STALE] {
        counter!(super::ENRICH_WARNINGS, super::CODE => code).increment(0);
    }
}

fn scores() {
    for kind in ["login", "appointment"] {
        for level in Level::ALL {
            counter!(super::SCORES, super::KIND => kind, super::LEVEL => level.name()).increment(0);
        }
        counter!(super::SCORES_DEGRADED, super::KIND => kind).increment(0);
    }
    counter!(super::DECISIONS_RECORDED).increment(0);
    for loss in crate::decisions::Loss::ALL {
        counter!(super::DECISIONS_LOST, super::REASON => loss.name()).increment(0);
    }
}

fn reminders() {
    for status in [plan::Status::Sent, plan::Status::Withdrawn] {
        counter!(meter::REMINDERS, "status" => status.name()).increment(0);
    }
    for (status, reasons) in UNSENT {
        for reason in reasons {
            counter!(meter::REMINDERS_UNSENT, "status" => status.name(), "reason" => *reason).increment(0);
        }
    }
    drop(histogram!(meter::REMINDER_DELAY_SECONDS));
}

/// Exports what is counted by route, for the operations that a process serves.
pub fn routes(document: &OpenApi) {
    for (path, item) in &document.paths.paths {
        let methods = [("GET", &item.get), ("PUT", &item.put), ("POST", &item.post), ("DELETE", &item.delete)];
        for (method, _) in methods.into_iter().filter(|(_, operation)| operation.is_some()) {
            route(path, method);
        }
    }
}

/// The same for one route.
pub fn route(route: &str, method: &'static str) {
    drop(histogram!(super::HTTP_SECONDS, super::ROUTE => route.to_owned()));
    counter!(super::HTTP_LONG_POLLS, super::ROUTE => route.to_owned()).increment(0);
    for status in FAILURES {
        let labels = [(super::ROUTE, route.to_owned()), (super::METHOD, method.into()), (super::STATUS, status.into())];
        counter!(super::HTTP_REQUESTS, &labels).increment(0);
    }
}
