//! The statements, prepared once.
//!
//! Each binds the whole partition key, otherwise the driver could not route it to a replica, and each is marked as
//! idempotent, otherwise the driver would not retry it.

use super::fault;
use foretell_ports::Error;
use scylla::client::session::Session;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;

/// The statements that the store executes.
pub(super) struct Statements {
    pub(super) write_row: PreparedStatement,
    pub(super) write_checkpoint: PreparedStatement,
    pub(super) read_checkpoint: PreparedStatement,
    pub(super) read_keys: PreparedStatement,
    pub(super) read_keys_of_source: PreparedStatement,
    pub(super) scan: PreparedStatement,
    pub(super) scan_after: PreparedStatement,
    pub(super) buckets: PreparedStatement,
    pub(super) read_pointer: PreparedStatement,
    pub(super) settle_pointer: PreparedStatement,
    pub(super) create_pointer: PreparedStatement,
    pub(super) replace_pointer: PreparedStatement,
    pub(super) drop_bucket: PreparedStatement,
    pub(super) drop_checkpoint: PreparedStatement,
    pub(super) checkpoints: PreparedStatement,
}

const WRITE_ROW: &str = "INSERT INTO KEYSPACE.rows (view_name, generation, bucket, key, source, cell) \
     VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ?";
const WRITE_CHECKPOINT: &str =
    "INSERT INTO KEYSPACE.checkpoints (family, generation, source, state) VALUES (?, ?, ?, ?) USING TIMESTAMP ?";
const READ_CHECKPOINT: &str =
    "SELECT state FROM KEYSPACE.checkpoints WHERE family = ? AND generation = ? AND source = ?";
const READ_KEYS: &str =
    "SELECT key, source, cell FROM KEYSPACE.rows WHERE view_name = ? AND generation = ? AND bucket = ? AND key IN ?";
const READ_KEYS_OF_SOURCE: &str = "SELECT key, source, cell FROM KEYSPACE.rows \
     WHERE view_name = ? AND generation = ? AND bucket = ? AND key IN ? AND source = ?";
const SCAN: &str =
    "SELECT key, source, cell FROM KEYSPACE.rows WHERE view_name = ? AND generation = ? AND bucket = ? LIMIT ?";
const SCAN_AFTER: &str = "SELECT key, source, cell FROM KEYSPACE.rows \
     WHERE view_name = ? AND generation = ? AND bucket = ? AND (key, source) > (?, ?) LIMIT ?";
/// Reads partition keys and no rows. The replicas could filter by view and generation, but only with `ALLOW FILTERING`,
/// which a guardrail of the cluster can forbid, and then no store could be opened.
const BUCKETS: &str = "SELECT DISTINCT view_name, generation, bucket FROM KEYSPACE.rows";
const READ_POINTER: &str = "SELECT state FROM KEYSPACE.pointers WHERE family = ?";
const CREATE_POINTER: &str = "INSERT INTO KEYSPACE.pointers (family, state) VALUES (?, ?) IF NOT EXISTS";
const REPLACE_POINTER: &str = "UPDATE KEYSPACE.pointers SET state = ? WHERE family = ? IF state = ?";
const DROP_BUCKET: &str =
    "DELETE FROM KEYSPACE.rows USING TIMESTAMP ? WHERE view_name = ? AND generation = ? AND bucket = ?";
const DROP_CHECKPOINT: &str =
    "DELETE FROM KEYSPACE.checkpoints USING TIMESTAMP ? WHERE family = ? AND generation = ? AND source = ?";
const CHECKPOINTS: &str = "SELECT DISTINCT family, generation, source FROM KEYSPACE.checkpoints";

impl Statements {
    /// Prepares all statements in the session's keyspace.
    pub(super) async fn prepare(session: &Session) -> Result<Self, Error> {
        let mut settle_pointer = idempotent(session, READ_POINTER).await?;
        // Completes a lightweight transaction whose outcome was still open, and returns its result. Used only after a
        // swap with an unknown outcome: such reads contend with each other, and with many frequent readers all of
        // them would time out.
        settle_pointer.set_consistency(Consistency::LocalSerial);
        Ok(Self {
            write_row: idempotent(session, WRITE_ROW).await?,
            write_checkpoint: idempotent(session, WRITE_CHECKPOINT).await?,
            read_checkpoint: idempotent(session, READ_CHECKPOINT).await?,
            read_keys: idempotent(session, READ_KEYS).await?,
            read_keys_of_source: idempotent(session, READ_KEYS_OF_SOURCE).await?,
            scan: idempotent(session, SCAN).await?,
            scan_after: idempotent(session, SCAN_AFTER).await?,
            buckets: idempotent(session, BUCKETS).await?,
            read_pointer: idempotent(session, READ_POINTER).await?,
            settle_pointer,
            create_pointer: prepare(session, CREATE_POINTER).await?,
            replace_pointer: prepare(session, REPLACE_POINTER).await?,
            drop_bucket: idempotent(session, DROP_BUCKET).await?,
            drop_checkpoint: idempotent(session, DROP_CHECKPOINT).await?,
            checkpoints: idempotent(session, CHECKPOINTS).await?,
        })
    }
}

async fn idempotent(session: &Session, statement: &str) -> Result<PreparedStatement, Error> {
    let mut prepared = prepare(session, statement).await?;
    prepared.set_is_idempotent(true);
    Ok(prepared)
}

/// Cassandra requires prepared statements to name their keyspace, independent of the session's.
async fn prepare(session: &Session, statement: &str) -> Result<PreparedStatement, Error> {
    let keyspace = session.get_keyspace().map(|keyspace| format!("\"{keyspace}\"")).unwrap_or_default();
    let statement = statement.replace("KEYSPACE", &keyspace);
    session.prepare(statement).await.map_err(|error| fault::preparation(&error))
}
