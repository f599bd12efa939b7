//! The store on Apache Cassandra.
//!
//! ```text
//!   apply ─► rows by bucket ─► one batch per bucket, in parallel ─► all written? ─► checkpoint
//!   read ──► keys by bucket ─► one clustered look-up per bucket, in parallel
//! ```
//!
//! There are no read-modify-writes. Each write carries its position as timestamp, `epoch << 44 | position`, so a late
//! write by the previous owner of a partition loses to what its successor has written, and writing the same flush
//! again changes nothing. Every statement is therefore idempotent, and a write without a response is simply repeated.
//! Reads and writes are at LOCAL_QUORUM; only the pointer uses lightweight transactions.
//!
//! Not supported: DELETE other than of a whole generation, TTL, counters, collections, partial updates and
//! multi-partition batches.
//!
//! Public functions return boxed futures. The code of an `async fn` is generated in the crate that polls it, so without
//! the box every build of the binary would compile much of the driver again.

mod config;
mod dropping;
mod fault;
mod pointer;
mod read;
pub mod schema;
mod session;
mod statements;
mod write;

pub use config::Config;

use async_trait::async_trait;
use foretell_domain::address::{Family, Generation, RowKey, View};
use foretell_domain::pointer::Pointer;
use foretell_ports::Error;
use foretell_ports::store::{Checkpoint, Flush, Row, Store};
use futures::future::BoxFuture;
use scylla::client::session::Session;
use statements::Statements;

/// The store on a Cassandra cluster.
pub struct Cassandra {
    session: Session,
    keyspace: String,
    statements: Statements,
    limits: Limits,
}

/// Limits of one call.
#[derive(Debug, Clone, Copy)]
struct Limits {
    batch_bytes_max: usize,
    concurrency_max: usize,
}

impl Cassandra {
    /// Connects to `cassandra://host:port,host:port/keyspace` and prepares all statements.
    ///
    /// Fatal when the keyspace is missing, when its schema is older or newer than this program, or when a setting is
    /// invalid; Retry when no node answers.
    pub fn open<'a>(url: &'a str, config: &'a Config) -> BoxFuture<'a, Result<Self, Error>> {
        Box::pin(Self::connect(url, config))
    }

    async fn connect(url: &str, config: &Config) -> Result<Self, Error> {
        let address = session::Address::parse(url)?;
        let session = session::connect(&address, config).await?;
        schema::enter(&session, &address.keyspace).await?;
        schema::check(&session).await?;
        let statements = Statements::prepare(&session).await?;
        let limits =
            Limits { batch_bytes_max: config.batch_bytes_max.max(1), concurrency_max: config.concurrency_max.max(1) };
        Ok(Self { session, keyspace: address.keyspace, statements, limits })
    }

    /// How this cluster could lose acknowledged rows, one sentence each; empty if it cannot.
    pub fn warnings(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        Box::pin(schema::warnings(&self.session, &self.keyspace))
    }
}

/// Whether the keyspace of a URL is a valid name; URLs of directories are accepted.
///
/// # Errors
/// The expected form.
pub fn check_url(url: &str) -> Result<(), String> {
    if url.starts_with("disk:") { Ok(()) } else { session::Address::parse(url).map(drop).map_err(|error| error.detail) }
}

#[async_trait]
impl Store for Cassandra {
    fn system(&self) -> &'static str {
        "cassandra"
    }

    async fn checkpoint(&self, generation: Generation, partition: u32) -> Result<Option<Checkpoint>, Error> {
        self.read_checkpoint(generation, partition).await
    }

    async fn apply(&self, flush: &Flush) -> Result<(), Error> {
        self.write_rows(flush).await?;
        self.write_checkpoint(flush).await
    }

    async fn read(&self, generation: Generation, source: Option<u32>, keys: &[RowKey]) -> Result<Vec<Vec<Row>>, Error> {
        self.read_rows(generation, source, keys).await
    }

    async fn scan(
        &self,
        generation: Generation,
        view: View,
        bucket: i64,
        after: Option<(&str, u32)>,
        limit: usize,
    ) -> Result<Vec<(String, Row)>, Error> {
        let partition = read::Partition { generation, view, bucket };
        self.scan_bucket(partition, after, limit).await
    }

    async fn drop_generation(&self, generation: Generation) -> Result<(), Error> {
        self.drop_all(generation).await
    }

    async fn buckets(&self, generation: Generation, view: View) -> Result<Vec<i64>, Error> {
        self.list_buckets(generation, view).await
    }

    async fn pointer(&self, family: Family) -> Result<Option<Pointer>, Error> {
        self.read_pointer(family).await
    }

    async fn swap_pointer(&self, family: Family, expected: Option<&Pointer>, new: &Pointer) -> Result<bool, Error> {
        self.compare_and_set(family, expected, new).await
    }
}

/// Converts a generation, partition or epoch, which are far below the range of CQL's `int`.
fn int(number: u32) -> Result<i32, Error> {
    i32::try_from(number).map_err(|_| Error::reject("name a number", number))
}
