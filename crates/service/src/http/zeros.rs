//! Metrics of requests from the start, at zero, so that the first failure of a route shows in `increase()`.

use super::problem::ProblemCode;
use super::refusals::UNKNOWN;
use foretell_domain::score::RiskLevel;
use foretell_events::Topic;
use foretell_telemetry::{
    CODE, EVENTS_ACCEPTED, FAMILY, FIELDS_DROPPED, HTTP_INFLIGHT, HTTP_LONG_POLLS, HTTP_PROBLEMS, HTTP_REFUSED,
    HTTP_REQUESTS, HTTP_SECONDS, HTTP_STREAMS, KEY, KIND, LEVEL, LOG_APPEND_SECONDS, METHOD, POLICIES_REFUSED, ROUTE,
    SCORES, SCORES_DEGRADED, STATUS,
};
use metrics::{counter, gauge, histogram};
use utoipa::openapi::OpenApi;

/// Statuses of answers that alerts watch.
const FAILURES: [&str; 2] = ["500", "503"];

/// Exports what does not depend on the routes of the process.
pub(super) fn register() {
    for code in ProblemCode::ALL {
        counter!(HTTP_PROBLEMS, CODE => code.name()).increment(0);
    }
    let unknown = [(KEY, UNKNOWN), (CODE, ProblemCode::Unauthenticated.name())];
    counter!(HTTP_REFUSED, &unknown).increment(0);
    route("none", "GET");
    gauge!(HTTP_INFLIGHT).increment(0.0);
    gauge!(HTTP_STREAMS).increment(0.0);
    for topic in Topic::ALL.into_iter().filter(|topic| *topic != Topic::DeadLetters) {
        counter!(EVENTS_ACCEPTED, FAMILY => topic.name()).increment(0);
        counter!(FIELDS_DROPPED, "family" => topic.name()).increment(0);
    }
    for kind in ["login", "appointment"] {
        for level in RiskLevel::ALL {
            counter!(SCORES, KIND => kind, LEVEL => level.name()).increment(0);
        }
        counter!(SCORES_DEGRADED, KIND => kind).increment(0);
    }
    drop(histogram!(LOG_APPEND_SECONDS));
    counter!(POLICIES_REFUSED).increment(0);
}

/// Exports the counters by route at zero, for the operations that a process serves.
pub(super) fn routes(document: &OpenApi) {
    for (path, item) in &document.paths.paths {
        let methods = [("GET", &item.get), ("PUT", &item.put), ("POST", &item.post), ("DELETE", &item.delete)];
        for (method, _) in methods.into_iter().filter(|(_, operation)| operation.is_some()) {
            route(path, method);
        }
    }
}

/// The same for one route.
pub(super) fn route(route: &str, method: &'static str) {
    drop(histogram!(HTTP_SECONDS, ROUTE => route.to_owned()));
    counter!(HTTP_LONG_POLLS, ROUTE => route.to_owned()).increment(0);
    for status in FAILURES {
        let labels = [(ROUTE, route.to_owned()), (METHOD, method.into()), (STATUS, status.into())];
        counter!(HTTP_REQUESTS, &labels).increment(0);
    }
}
