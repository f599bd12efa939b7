//! The routers of a process at its start: they serve from the first moment, and are replaced once log and store are
//! open.
//!
//! A process that waits for its cluster must show that it is alive, and what it waits for. So each listener serves a
//! router that can be replaced: first one with liveness and a readiness that names what is missing, then the full one.

use axum::routing::get;
use axum::serve::{Listener, ListenerExt};
use axum::{Json, Router, middleware};
use foretell_service::http::problem::{Problem, ProblemCode};
use foretell_service::http::{edge, ops};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::net::TcpListener;

/// The replaceable routers of a process: for callers and for operators.
#[derive(Clone)]
pub(super) struct StartupRouters {
    missing: Arc<RwLock<String>>,
    pub(super) callers: StartupRouter,
    pub(super) operators: StartupRouter,
}

/// The router that a listener currently serves.
#[derive(Clone)]
pub(super) struct StartupRouter(Arc<RwLock<Router>>);

impl Default for StartupRouters {
    fn default() -> Self {
        let missing: Arc<RwLock<String>> = Arc::new(RwLock::new("log and store".into()));
        let callers = StartupRouter::new(waiting(missing.clone()));
        // Metrics are available before the process serves anything else.
        let operators = StartupRouter::new(ops::metrics_router().merge(waiting(missing.clone())));
        Self { missing, callers, operators }
    }
}

impl StartupRouters {
    /// Sets what the process waits for.
    pub(super) fn wait_for(&self, what: String) {
        *self.missing.write().unwrap_or_else(PoisonError::into_inner) = what;
    }
}

impl StartupRouter {
    fn new(router: Router) -> Self {
        Self(Arc::new(RwLock::new(router)))
    }

    /// Replaces the router.
    pub(super) fn replace(&self, router: Router) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = router;
    }

    /// The current router, for one request.
    pub(super) fn current(&self) -> Router {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn waiting(missing: Arc<RwLock<String>>) -> Router {
    let not_ready = move || {
        let missing = missing.read().unwrap_or_else(PoisonError::into_inner).clone();
        async move { Problem::new(ProblemCode::Starting, format!("waiting for {missing}")) }
    };
    let router = Router::new().route("/livez", get(|| async { Json(json!({"status": "ok"})) })).fallback(not_ready);
    router.layer(middleware::from_fn(edge::without_api))
}

/// Disables Nagle's algorithm: responses are small and complete, so they are sent at once.
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
        let routers = StartupRouters::default();
        for (path, status) in [("/livez", 200), ("/readyz", 503), ("/v1/users/u", 503), ("/docs/", 503)] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let answer = routers.callers.current().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
            assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store", "{path}");
            assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        }
    }
}
