//! Metrics of routes from the start, at zero, so that the first failure of a route shows in `increase()`.

use metrics::{counter, histogram};
use utoipa::openapi::OpenApi;

/// Statuses of answers that alerts watch.
const FAILURES: [&str; 2] = ["500", "503"];

/// Exports the counters by route at zero, for the operations that a process serves.
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
    drop(histogram!(foretell_telemetry::HTTP_SECONDS, foretell_telemetry::ROUTE => route.to_owned()));
    counter!(foretell_telemetry::HTTP_LONG_POLLS, foretell_telemetry::ROUTE => route.to_owned()).increment(0);
    for status in FAILURES {
        let labels = [
            (foretell_telemetry::ROUTE, route.to_owned()),
            (foretell_telemetry::METHOD, method.into()),
            (foretell_telemetry::STATUS, status.into()),
        ];
        counter!(foretell_telemetry::HTTP_REQUESTS, &labels).increment(0);
    }
}
