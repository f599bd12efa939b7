//! Accepts connections until shutdown, then lets open requests finish, for a bounded time.
//!
//! ```text
//!   accept ─► a place, of all and of the peer's share ─► HTTP/1.1 or HTTP/2 ─► each request ─► the router
//!               │ none is left: the quiet connection           │ quiet for too long: closed
//!               │ whose time is up first gives its place       │ an answer that is not read: closed, or reset
//!               └ none is quiet: the reserve, for probes alone
//! ```
//!
//! hyper bounds how long a head may take once it has seen which version a connection speaks, and nothing else. So the
//! time that a connection may be quiet is decided here, for all states of both protocols by one rule: see [`watch`].

mod delivery;
mod places;
mod watch;

pub use places::{Peer, Remote};

use super::problem::{Code, Problem};
use super::{Config, health};
use crate::telemetry::{self, trace};
use axum::Router;
use axum::http::{Request, Version, header};
use axum::response::IntoResponse;
use axum::serve::Listener;
use delivery::{Answer, Delivery, Streams};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use places::{Place, Places};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt, service_fn};
use tracing::Span;
use watch::{Over, Patience, Watch};

/// Between two foldings of what histograms collected, so that they do not grow where nobody reads them.
const UPKEEP: Duration = Duration::from_secs(5);
/// Longest head of a request, and most bytes of a connection that are read ahead or wait to be written.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Requests of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 100;
/// How long a connection that was quiet for too long may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// Connections that wait to be accepted: a burst that finds no room tries again a second later.
const BACKLOG: u32 = 4_096;
/// Connections beyond `connections_max`, on which probes alone are answered.
pub const RESERVE: usize = 32;
/// How long such a connection may take to send its request.
const RESERVE_HEAD: Duration = Duration::from_secs(1);

/// Listens on the first address of `address`, a `host:port`, that can be bound.
///
/// # Errors
/// Where it cannot be resolved, and where none of its addresses can be bound.
pub async fn listen(address: &str) -> std::io::Result<TcpListener> {
    let mut failed = None;
    for address in tokio::net::lookup_host(address).await? {
        match bound(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| std::io::Error::other("it has no address")))
}

fn bound(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves what is `behind` when a request comes, over HTTP/1.1 and HTTP/2, until `shutdown` says so; answers when the
/// last request is answered, or after `drain_ms`, when what is still open is cut off.
///
/// For TCP, set `TCP_NODELAY` with [`axum::serve::ListenerExt::tap_io`].
pub async fn serve<L>(
    mut listener: L,
    behind: impl Fn() -> Router + Clone + Send + 'static,
    config: &Config,
    shutdown: CancellationToken,
) where
    L: Listener,
    L::Addr: Remote,
{
    let reception = Reception::new(config, shutdown.clone());
    let mut connections = JoinSet::new();
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            (io, address) = listener.accept() => if let Some(admitted) = reception.admit(address.peer()) {
                connections.spawn(admitted.attend(io, behind.clone()));
            },
            Some(_) = connections.join_next() => {}
            _ = upkeep.tick() => telemetry::upkeep(),
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(reception.drain, drained).await.is_err() {
        tracing::warn!(open = connections.len(), drain_ms = config.drain_ms, "cut open connections off");
    }
    // Whatever is still open ends with the set.
    connections.shutdown().await;
}

/// Decides what becomes of a new connection.
struct Reception {
    places: Arc<Places>,
    reserve: Arc<Places>,
    patience: Patience,
    write: Duration,
    drain: Duration,
    builder: Arc<Builder<Streams>>,
    shutdown: CancellationToken,
}

impl Reception {
    fn new(config: &Config, shutdown: CancellationToken) -> Self {
        let write = Duration::from_millis(config.write_ms_max);
        let mut builder = Builder::new(Streams::new(write));
        builder.http1().header_read_timeout(None).max_buf_size(HEAD_BYTES_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_millis(config.head_ms_max))
            .max_concurrent_streams(STREAMS_MAX);
        Self {
            places: Places::new(config.connections_max, config.connections_peer_max),
            reserve: Places::new(RESERVE, RESERVE),
            patience: Patience {
                head: Duration::from_millis(config.head_ms_max),
                idle: Duration::from_millis(config.idle_ms_max),
            },
            write,
            drain: Duration::from_millis(config.drain_ms),
            builder: Arc::new(builder),
            shutdown,
        }
    }

    /// A place for a connection, or one of the reserve; none where all of both are busy.
    fn admit(&self, peer: Option<Peer>) -> Option<Admitted> {
        let admitted = |place, watch, probes_only| {
            let (write, drain) = (self.write, self.drain);
            let (builder, shutdown) = (self.builder.clone(), self.shutdown.clone());
            Admitted { place, watch, probes_only, write, drain, builder, shutdown }
        };
        let watch = Watch::new(self.patience);
        if let Some(place) = self.places.admit(peer, &watch) {
            return Some(admitted(place, watch, false));
        }
        let watch = Watch::new(Patience { head: RESERVE_HEAD, idle: Duration::ZERO });
        self.reserve.admit(peer, &watch).map(|place| admitted(place, watch, true))
    }
}

/// A connection that has a place.
struct Admitted {
    place: Place,
    watch: Arc<Watch>,
    /// It is one of the reserve.
    probes_only: bool,
    write: Duration,
    drain: Duration,
    builder: Arc<Builder<Streams>>,
    shutdown: CancellationToken,
}

impl Admitted {
    /// Serves the connection to its end.
    async fn attend<I>(self, io: I, behind: impl Fn() -> Router + Clone + Send + 'static)
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let Self { place: _place, watch, probes_only, write, drain, builder, shutdown } = self;
        let (requests, delivery) = (watch.clone(), Arc::<Delivery>::default());
        let answers = delivery.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (open, behind, delivery) = (requests.open(), behind.clone(), answers.clone());
            async move {
                let response = match refusal(&request, probes_only) {
                    Some(problem) => {
                        let answer = async { problem.into_response() };
                        trace::scope(trace::caller(request.headers()), &Span::none(), answer).await
                    }
                    None => behind().oneshot(request).await?,
                };
                Ok::<_, Infallible>(response.map(|body| Answer::new(body, open, &delivery)))
            }
        });
        let connection = builder.serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
        let mut connection = pin!(connection);
        let goodbye = tokio::select! {
            ended = connection.as_mut() => return told(ended),
            over = watch.over() => match over {
                Over::Quiet => GOODBYE,
                Over::Evicted => return,
            },
            () = delivery.stalled(write) => return,
            () = shutdown.cancelled() => drain,
        };
        connection.as_mut().graceful_shutdown();
        if let Ok(ended) = tokio::time::timeout(goodbye, connection).await {
            told(ended);
        }
    }
}

fn told<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Why a request does not get as far as the router.
fn refusal<B>(request: &Request<B>, probes_only: bool) -> Option<Problem> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    // RFC 9112, 3.2: who reads the first of two and who reads the last would not agree whom a request is for.
    if hosts > 1 || hosts == 0 && request.version() == Version::HTTP_11 {
        return Some(Problem::new(Code::MalformedRequest, "send the header Host once"));
    }
    let detail = "all connections are taken: this one answers /livez and /readyz alone";
    let is_out = probes_only && !health::is_probe(request.uri().path());
    is_out.then(|| Problem::new(Code::Overloaded, detail))
}
