//! The door of a process: open from the first moment, with little behind it until log and store are there.
//!
//! A process that waits for its cluster must be seen to live, and must say what it waits for. So the listener
//! serves a router that can be exchanged: first liveness and a readiness that names what is missing, then the API.

use crate::http::problem::{Code, Problem};
use axum::routing::get;
use axum::serve::{Listener, ListenerExt};
use axum::{Json, Router};
use serde_json::json;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::net::TcpListener;

/// What a process serves at the moment.
#[derive(Clone)]
pub(super) struct Door {
    missing: Arc<RwLock<String>>,
    behind: Arc<RwLock<Router>>,
}

impl Default for Door {
    fn default() -> Self {
        let missing: Arc<RwLock<String>> = Arc::new(RwLock::new("log and store".into()));
        let waiting = waiting(missing.clone());
        Self { missing, behind: Arc::new(RwLock::new(waiting)) }
    }
}

impl Door {
    /// Says what the process waits for.
    pub(super) fn missing(&self, what: String) {
        *self.missing.write().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// Serves this from now on.
    pub(super) fn open(&self, router: Router) {
        *self.behind.write().unwrap_or_else(PoisonError::into_inner) = router;
    }

    /// What is behind the door when a request comes.
    pub(super) fn behind(&self) -> Router {
        self.behind.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn waiting(missing: Arc<RwLock<String>>) -> Router {
    let not_ready = move || {
        let missing = missing.read().unwrap_or_else(PoisonError::into_inner).clone();
        async move { Problem::new(Code::Starting, format!("waiting for {missing}")) }
    };
    Router::new().route("/livez", get(|| async { Json(json!({"status": "ok"})) })).fallback(not_ready)
}

/// Answers are small and whole: they are sent at once.
pub(super) fn no_delay(listener: TcpListener) -> impl Listener {
    listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    })
}
