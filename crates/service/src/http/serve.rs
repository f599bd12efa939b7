//! Accepts connections until shutdown, then lets open requests finish for a bounded time.
//!
//! ```text
//!   accept ─► a slot, of all and of the peer's share ──► HTTP/1.1 or HTTP/2 ─► each request ─► the router
//!               │ none is free: the idle connection            │ idle for too long: closed
//!               │ whose time ends first is closed              │ an answer that is not read: closed, or reset
//!               └ none is idle: the reserve, for probes only
//! ```
//!
//! A connection that ends announces it first (GOAWAY over HTTP/2), so a request sent at the same time is still
//! answered.
//!
//! hyper only limits how long a head may take once it has detected the protocol version of a connection. So how long a
//! connection may be idle is limited here, by one rule for all states of both protocols: see [`watch`].

mod delivery;
mod slots;
mod watch;

pub use slots::{HasPeer, Peer};

use super::cors::Cors;
use super::problem::{Problem, ProblemCode};
use super::{Config, edge, health};
use axum::Router;
use axum::http::{Request, Version, header};
use axum::response::Response;
use axum::serve::Listener;
use delivery::{Delivery, ResponseBody, Streams};
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use slots::{ConnectionSlot, ConnectionSlots};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt, service_fn};
use watch::{CloseReason, ConnectionTimeouts, Watch};

/// Interval at which histograms are compacted, so that they do not grow if no one scrapes them.
const UPKEEP: Duration = Duration::from_secs(5);
/// Largest head of a request, and most bytes of a connection that are read ahead or wait to be written.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Concurrent requests of one HTTP/2 connection.
const STREAMS_MAX: u32 = 100;
/// How long a connection stays open without a request after it announced its end.
const SHUTDOWN_IDLE: Duration = Duration::from_secs(1);
/// Bytes of an HTTP/2 stream that wait to be sent.
const SEND_BYTES_MAX: usize = 64 * 1024;
/// Connections that wait to be accepted: those of a burst that exceed it retry a second later.
const BACKLOG: u32 = 4_096;
/// Connections in addition to `connections_max`, on which only probes are answered.
pub const RESERVE: usize = 32;
/// How long such a connection may take to send its request, and then to read the answer.
const RESERVE_TIMEOUT: Duration = Duration::from_secs(1);

/// The host and port of a setting; `:PORT` is that port of all IPv4 addresses of this machine.
///
/// # Errors
/// What is missing, with an example.
pub(super) fn host_port(setting: &str) -> Result<(&str, u16), String> {
    let form = |like: &str| format!("{setting:?} is not ADDRESS:PORT, such as {like}");
    let (host, port) = setting.rsplit_once(':').ok_or_else(|| match setting.parse::<u16>() {
        Ok(port) => form(&format!("127.0.0.1:{port}")),
        Err(_) if setting == "localhost" || setting.parse::<IpAddr>().is_ok() => form(&format!("{setting}:8080")),
        Err(_) => form("127.0.0.1:8080"),
    })?;
    let host = match host {
        "" => "0.0.0.0",
        bracketed if bracketed.starts_with('[') && bracketed.ends_with(']') => &bracketed[1..bracketed.len() - 1],
        bare if bare.parse::<Ipv6Addr>().is_ok() || setting.parse::<Ipv6Addr>().is_ok() => {
            return Err(form("[::1]:8080"));
        }
        other if other.contains([':', '/']) => return Err(form("127.0.0.1:8080")),
        host => host,
    };
    let digits = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let port = digits.and_then(|port| port.parse().ok()).ok_or_else(|| form("127.0.0.1:8080"))?;
    Ok((host, port))
}

/// Listens on the first address of a `host:port` that can be bound.
///
/// # Errors If it is invalid, if it cannot be resolved, and if none of its addresses can be bound.
pub async fn listen(address: &str) -> std::io::Result<TcpListener> {
    let address = host_port(address).map_err(|form| std::io::Error::new(std::io::ErrorKind::InvalidInput, form))?;
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

/// Serves the router that `router` returns for each request, over HTTP/1.1 and HTTP/2, until `shutdown` completes.
/// Returns when the last request is answered, or after `drain_ms`, when the remaining connections are closed.
///
/// For TCP, set `TCP_NODELAY` with [`axum::serve::ListenerExt::tap_io`].
pub async fn serve<L>(
    mut listener: L,
    router: impl Fn() -> Router + Send + Sync + 'static,
    config: &Config,
    shutdown: CancellationToken,
) where
    L: Listener,
    L::Addr: HasPeer,
{
    let (acceptor, router): (_, CurrentRouter) = (Acceptor::new(config, shutdown.clone()), Arc::new(router));
    let mut connections = JoinSet::new();
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            (io, address) = listener.accept() => if let Some(admitted) = acceptor.admit(address.peer()) {
                connections.spawn(admitted.serve(Box::new(io), router.clone()));
            },
            Some(_) = connections.join_next() => {}
            _ = upkeep.tick() => foretell_telemetry::upkeep(),
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(acceptor.drain, drained).await.is_err() {
        tracing::warn!(open = connections.len(), drain_ms = config.drain_ms, "closed connections that were still open");
    }
    // The remaining connections end with the set.
    connections.shutdown().await;
}

/// Returns the router for the next request.
type CurrentRouter = Arc<dyn Fn() -> Router + Send + Sync>;

/// The bytes of a connection: without its type, so that HTTP is compiled once and not for each kind of listener.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Assigns slots to new connections.
struct Acceptor {
    ordinary: ConnectionPool,
    reserve: ConnectionPool,
    drain: Duration,
    shutdown: CancellationToken,
}

/// Slots of one kind, and how their connections are served.
struct ConnectionPool {
    slots: Arc<ConnectionSlots>,
    timeouts: ConnectionTimeouts,
    service: ConnectionService,
}

/// How a connection is served.
#[derive(Clone)]
struct ConnectionService {
    /// It belongs to the reserve.
    probes_only: bool,
    /// How long a part of an answer may wait for the peer.
    write: Duration,
    builder: Arc<Builder<Streams>>,
    cors: Cors,
}

impl Acceptor {
    fn new(config: &Config, shutdown: CancellationToken) -> Self {
        let (ms, cors) = (Duration::from_millis, Cors::new(&config.cors_origins));
        let pool = |slots, timeouts, write, probes_only| {
            let builder = Arc::new(builder(write, ms(config.head_ms_max)));
            ConnectionPool {
                slots,
                timeouts,
                service: ConnectionService { probes_only, write, builder, cors: cors.clone() },
            }
        };
        let timeouts = ConnectionTimeouts { head: ms(config.head_ms_max), idle: ms(config.idle_ms_max) };
        let slots = ConnectionSlots::new(config.connections_max, config.connections_peer_max);
        let reserve_timeouts = ConnectionTimeouts { head: RESERVE_TIMEOUT, idle: Duration::ZERO };
        Self {
            ordinary: pool(slots, timeouts, ms(config.write_ms_max), false),
            reserve: pool(ConnectionSlots::new(RESERVE, RESERVE), reserve_timeouts, RESERVE_TIMEOUT, true),
            drain: ms(config.drain_ms),
            shutdown,
        }
    }

    /// A slot for a connection, or one of the reserve; none if all of both are busy.
    fn admit(&self, peer: Option<Peer>) -> Option<Admitted> {
        [&self.ordinary, &self.reserve].into_iter().find_map(|pool| {
            let watch = Watch::new(pool.timeouts);
            let slot = pool.slots.admit(peer, &watch)?;
            Some(Admitted { slot, watch, service: pool.service.clone(), shutdown: self.shutdown.clone() })
        })
    }
}

fn builder(write: Duration, ping: Duration) -> Builder<Streams> {
    let mut builder = Builder::new(Streams::new(write));
    builder.http1().header_read_timeout(None).max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(ping)
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX);
    builder
}

/// A connection that has a slot.
struct Admitted {
    slot: ConnectionSlot,
    watch: Arc<Watch>,
    service: ConnectionService,
    shutdown: CancellationToken,
}

impl Admitted {
    /// Serves the connection to its end.
    fn serve(self, io: Box<dyn Io>, router: CurrentRouter) -> BoxFuture<'static, ()> {
        Box::pin(self.serve_requests(io, router))
    }

    async fn serve_requests(self, io: Box<dyn Io>, router: CurrentRouter) {
        let Self { slot: _slot, watch, service: ConnectionService { probes_only, write, builder, cors }, shutdown } =
            self;
        let (requests, delivery) = (watch.clone(), Arc::<Delivery>::default());
        let answers = delivery.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (open, router, delivery, cors) = (requests.open(), router.clone(), answers.clone(), cors.clone());
            async move {
                let answered = service_fn(move |request| answered(request, router.clone(), probes_only));
                let response = cors.answer(request, answered).await;
                Ok::<_, Infallible>(response.map(|body| ResponseBody::new(body, open, &delivery)))
            }
        });
        let connection = builder.serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return log_end(ended),
            over = watch.close_reason() => if over == CloseReason::Evicted { return },
            () = delivery.stalled(write) => return,
            () = shutdown.cancelled() => {}
        }
        // At shutdown a request may be in transit or open: the time limits of requests apply to it.
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection => log_end(ended),
            () = watch.idle_for(SHUTDOWN_IDLE) => {}
            () = watch.evicted() => {}
            () = delivery.stalled(write) => {}
        }
    }
}

fn log_end<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// The answer of the router, or the reason why a request does not reach it.
async fn answered(
    request: Request<Incoming>,
    router: CurrentRouter,
    probes_only: bool,
) -> Result<Response, Infallible> {
    match refusal(&request, probes_only) {
        Some(problem) => Ok(edge::refused(request.method(), request.headers(), problem).await),
        None => router().oneshot(request).await,
    }
}

/// Why a request does not reach the router.
fn refusal<B>(request: &Request<B>, probes_only: bool) -> Option<Problem> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    // RFC 9112, 3.2: servers that read the first of two and those that read the last would route the request
    // differently.
    if hosts > 1 || hosts == 0 && request.version() == Version::HTTP_11 {
        return Some(Problem::new(ProblemCode::MalformedRequest, "send the header Host once"));
    }
    let detail = "all connections are in use: this one answers only /livez and /readyz";
    let is_out = probes_only && !health::is_probe(request.uri().path());
    is_out.then(|| Problem::new(ProblemCode::Overloaded, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_to_listen_has_an_address_and_a_port() {
        for (setting, slot) in [
            ("127.0.0.1:8080", Ok(("127.0.0.1", 8080))),
            ("localhost:0", Ok(("localhost", 0))),
            (":8080", Ok(("0.0.0.0", 8080))),
            ("[::1]:8080", Ok(("::1", 8080))),
            ("localhost", Err("localhost:8080")),
            ("8080", Err("127.0.0.1:8080")),
            ("", Err("127.0.0.1:8080")),
            ("192.0.2.1", Err("192.0.2.1:8080")),
            ("http://127.0.0.1:8080", Err("127.0.0.1:8080")),
            ("127.0.0.1:+1", Err("127.0.0.1:8080")),
            ("off", Err("127.0.0.1:8080")),
            ("::1", Err("[::1]:8080")),
            ("127.0.0.1:", Err("127.0.0.1:8080")),
            (":99999", Err("127.0.0.1:8080")),
        ] {
            match (host_port(setting), slot) {
                (Ok(read), Ok(slot)) => assert_eq!(read, slot, "{setting}"),
                (Err(said), Err(like)) => assert!(said.contains(&format!("such as {like}")), "{setting}: {said}"),
                (read, _) => panic!("{setting}: {read:?}"),
            }
        }
    }
}
