//! The doors of a process: open from the first moment, with little behind them until log and store are there.
//!
//! A process that waits for its cluster must be seen to live, and must say what it waits for. So each listener serves
//! a router that can be exchanged: first liveness and a readiness that names what is missing, then what it is for.

use axum::routing::get;
use axum::serve::{Listener, ListenerExt};
use axum::{Json, Router, middleware};
use foretell_service::http::problem::{Code, Problem};
use foretell_service::http::{edge, ops};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::net::TcpListener;

/// The doors of a process: of callers and of operators.
#[derive(Clone)]
pub(super) struct Doors {
    missing: Arc<RwLock<String>>,
    pub(super) callers: Door,
    pub(super) operators: Door,
}

/// What a listener serves at the moment.
#[derive(Clone)]
pub(super) struct Door(Arc<RwLock<Router>>);

impl Default for Doors {
    fn default() -> Self {
        let missing: Arc<RwLock<String>> = Arc::new(RwLock::new("log and store".into()));
        let callers = Door::new(waiting(missing.clone()));
        // What a process counts it can say before it has anything to serve.
        let operators = Door::new(ops::metrics_router().merge(waiting(missing.clone())));
        Self { missing, callers, operators }
    }
}

impl Doors {
    /// Says what the process waits for.
    pub(super) fn missing(&self, what: String) {
        *self.missing.write().unwrap_or_else(PoisonError::into_inner) = what;
    }
}

impl Door {
    fn new(router: Router) -> Self {
        Self(Arc::new(RwLock::new(router)))
    }

    /// Serves this from now on.
    pub(super) fn open(&self, router: Router) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = router;
    }

    /// What is behind the door when a request comes.
    pub(super) fn behind(&self) -> Router {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn waiting(missing: Arc<RwLock<String>>) -> Router {
    let not_ready = move || {
        let missing = missing.read().unwrap_or_else(PoisonError::into_inner).clone();
        async move { Problem::new(Code::Starting, format!("waiting for {missing}")) }
    };
    let router = Router::new().route("/livez", get(|| async { Json(json!({"status": "ok"})) })).fallback(not_ready);
    router.layer(middleware::from_fn(edge::without_api))
}

/// Answers are small and whole: they are sent at once.
pub(super) fn no_delay(listener: TcpListener) -> impl Listener<Addr = SocketAddr> {
    listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::{Request, header};
    use tower::ServiceExt;

    #[tokio::test]
    async fn answers_before_there_is_an_api_are_not_kept_by_caches_either() {
        let doors = Doors::default();
        for (path, status) in [("/livez", 200), ("/readyz", 503), ("/v1/users/u", 503), ("/docs/", 503)] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let answer = doors.callers.behind().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
            assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store", "{path}");
            assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        }
    }
}
