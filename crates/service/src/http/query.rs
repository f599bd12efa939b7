//! Query parameters: a request with a parameter that its route does not have is rejected.
//!
//! Ignoring a misspelt parameter would answer a different request: a stream with `?form=latest` would start at the
//! oldest reminder. The parameters of a route are those of the OpenAPI document, so there is one list. Probes ignore
//! unknown parameters: monitoring systems may append any, and the answer is the same.

use super::problem::{InputError, Problem, ProblemCode};
use axum::extract::MatchedPath;
use axum::http::request::Parts;
use foretell_events::suggest;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use url::form_urlencoded;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{OpenApi, RefOr};

/// Lowest similarity at which a known name is suggested, from 0 to 1.
const SIMILARITY_MIN: f64 = 0.75;
/// Faults of a query that are reported; further ones are left out.
const FAULTS_MAX: usize = 10;

static DOCUMENTED: LazyLock<Known> = LazyLock::new(|| Known::of(&super::routes().into_openapi()));

/// The query parameters of every documented path, of all its methods.
#[derive(Debug, Default)]
struct Known(BTreeMap<String, BTreeSet<String>>);

impl Known {
    fn of(document: &OpenApi) -> Self {
        let paths = document.paths.paths.iter().map(|(path, item)| {
            let operations = [&item.get, &item.put, &item.post, &item.delete];
            let of_operations = operations.into_iter().flatten().filter_map(|operation| operation.parameters.as_ref());
            let all = item.parameters.iter().chain(of_operations).flatten();
            let name = |parameter: &RefOr<Parameter>| match parameter {
                RefOr::T(known) if matches!(known.parameter_in, ParameterIn::Query) => Some(known.name.clone()),
                _ => None,
            };
            (path.clone(), all.filter_map(name).collect())
        });
        Self(paths.collect())
    }

    /// The faults in the query of a route; a path that is not documented has no parameters.
    fn faults(&self, route: &str, query: &str) -> Vec<(ProblemCode, InputError)> {
        let none = BTreeSet::new();
        let known = self.0.get(route).unwrap_or(&none);
        let mut seen = BTreeSet::new();
        let fault = |(name, _): (Cow<'_, str>, _)| {
            let (code, detail) = match known.contains(name.as_ref()) {
                true if seen.insert(name.to_string()) => return None,
                true => (ProblemCode::MalformedRequest, format!("the query parameter {name} is given twice")),
                false => (ProblemCode::UnknownParameter, unknown(&name, known)),
            };
            let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            Some((code, InputError { pointer, code: code.name().to_owned(), detail }))
        };
        form_urlencoded::parse(query.as_bytes()).filter_map(fault).take(FAULTS_MAX).collect()
    }
}

fn unknown(name: &str, known: &BTreeSet<String>) -> String {
    match suggest::nearest(name, known.iter().map(String::as_str), SIMILARITY_MIN) {
        Some(nearest) => format!("there is no query parameter {name}; did you mean {nearest}?"),
        None if known.is_empty() => format!("there is no query parameter {name}; this path has none"),
        None => {
            let names: Vec<_> = known.iter().map(String::as_str).collect();
            format!("there is no query parameter {name}; this path has {}", names.join(", "))
        }
    }
}

/// Rejects a request whose query has a parameter that its route does not have, or has one twice.
///
/// # Errors
/// [`ProblemCode::UnknownParameter`] with the nearest name, or [`ProblemCode::MalformedRequest`]; the first fault
/// determines which.
pub(super) fn check(parts: &Parts) -> Result<(), Problem> {
    let Some(query) = parts.uri.query().filter(|query| !query.is_empty()) else { return Ok(()) };
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let faults = DOCUMENTED.faults(route, query);
    let Some((code, first)) = faults.first() else { return Ok(()) };
    Err(Problem::new(*code, first.detail.clone()).with(faults.into_iter().map(|(_, error)| error).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_or_repeated_parameter_is_reported_with_the_nearest_name() {
        let stream = "/v1/reminders/stream";
        for (route, query, reported) in [
            (stream, "from=latest", None),
            (stream, "%66rom=latest", None),
            (stream, "from", None),
            (stream, "&", None),
            (stream, "form=latest", Some("there is no query parameter form; did you mean from?")),
            (stream, "from=latest&lastEventId=0-0&ticket=ft_x", None),
            (
                stream,
                "from=latest&since=0-0",
                Some("there is no query parameter since; this path has from, lastEventId, ticket"),
            ),
            (stream, "ticket=a&ticket=b", Some("the query parameter ticket is given twice")),
            (stream, "from=latest&from=latest", Some("the query parameter from is given twice")),
            (stream, "=", Some("there is no query parameter ; this path has from, lastEventId, ticket")),
            ("/v1/agenda", "limt=3", Some("there is no query parameter limt; did you mean limit?")),
            ("/v1/users/{user_id}", "x=1", Some("there is no query parameter x; this path has none")),
            ("/nowhere", "x=1", Some("there is no query parameter x; this path has none")),
        ] {
            let faults = DOCUMENTED.faults(route, query);
            assert_eq!(faults.first().map(|(_, fault)| fault.detail.as_str()), reported, "{route}?{query}");
        }
        let many: String = (0..1_000).map(|n| format!("p{n}=&")).collect();
        assert_eq!(DOCUMENTED.faults(stream, &many).len(), FAULTS_MAX);
        assert_eq!(DOCUMENTED.faults(stream, "a~/b=1")[0].1.pointer, "/a~0~1b");
    }
}
