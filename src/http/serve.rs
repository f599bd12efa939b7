//! Accepts connections until shutdown, then lets open requests finish, for a bounded time.

use super::Config;
use crate::telemetry;
use axum::Router;
use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt, service_fn};

/// Between two foldings of what histograms collected, so that they do not grow where nobody reads them.
const UPKEEP: Duration = Duration::from_secs(5);

/// Serves what is `behind` when a request comes, over HTTP/1.1 and HTTP/2, until `shutdown` says so; answers when the last request is answered, or after
/// `drain_ms`, when what is still open is cut off.
///
/// For TCP, set `TCP_NODELAY` with [`axum::serve::ListenerExt::tap_io`].
pub async fn serve<L: Listener>(
    mut listener: L,
    behind: impl Fn() -> Router + Clone + Send + 'static,
    config: &Config,
    shutdown: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    let mut upkeep = tokio::time::interval(UPKEEP);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_millis(config.head_ms_max));
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_millis(config.head_ms_max));
    let accept = async |listener: &mut L| {
        // Closed never: the semaphore lives as long as this function.
        let place = places.clone().acquire_owned().await.ok();
        (listener.accept().await.0, place)
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            (io, place) = accept(&mut listener) => {
                let behind = behind.clone();
                let service = TowerToHyperService::new(service_fn(move |request| behind().oneshot(request)));
                let connection = builder.serve_connection(TokioIo::new(io), service).into_owned();
                let connection = graceful.watch(connection);
                connections.spawn(async move {
                    let _place = place;
                    if let Err(error) = connection.await {
                        tracing::debug!(error, "a connection ended");
                    }
                });
            }
            Some(_) = connections.join_next() => {}
            _ = upkeep.tick() => telemetry::upkeep(),
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(Duration::from_millis(config.drain_ms), graceful.shutdown()).await;
    if drained.is_err() {
        tracing::warn!(open = connections.len(), drain_ms = config.drain_ms, "cut open connections off");
    }
    // Whatever is still open ends with the set.
    connections.shutdown().await;
}
