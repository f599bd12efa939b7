//! The schema: numbered statements under `migrations/`, applied in order and recorded with a digest.
//!
//! `foretell migrate` applies missing statements. `serve` starts only on exactly the schema that it was built with: an
//! older schema lacks something, and a newer or different one may use the same names with another meaning.
//!
//! Cassandra gives each new table a random id, so two nodes that create a table at the same moment end up with two
//! tables of the same name. The two tables that must exist before anything can be recorded therefore get ids that are
//! derived from their names; all later statements are executed by the holder of the lock.

use super::{Config, fault, session};
use foretell_ports::{Error, Kind};
use futures::future::BoxFuture;
use scylla::client::session::Session;
use scylla::cluster::metadata::Strategy;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::statement::Statement;
use scylla::value::{CqlValue, Row};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// One statement.
struct Migration {
    name: &'static str,
    statement: &'static str,
}

/// The statements in order. The version of each is its index, counted from 1, and the number in its file name.
const MIGRATIONS: [Migration; 3] = [
    Migration { name: "0001_rows", statement: include_str!("../../../migrations/0001_rows.cql") },
    Migration { name: "0002_checkpoints", statement: include_str!("../../../migrations/0002_checkpoints.cql") },
    Migration { name: "0003_pointers", statement: include_str!("../../../migrations/0003_pointers.cql") },
];

/// The tables that exist before anything can be recorded: name and columns.
const FIRST_TABLES: [(&str, &str); 2] = [
    ("migrations", "version int PRIMARY KEY, name text, digest text, applied_at timestamp"),
    ("migration_lock", "name text PRIMARY KEY, holder text"),
];
const READ_RECORD: &str = "SELECT version, name, digest FROM migrations";
const WRITE_RECORD: &str =
    "INSERT INTO migrations (version, name, digest, applied_at) VALUES (?, ?, ?, toTimestamp(now()))";
/// The lock of a crashed holder expires after a minute.
const TAKE_LOCK: &str = "INSERT INTO migration_lock (name, holder) VALUES ('schema', ?) IF NOT EXISTS USING TTL 60";
const RELEASE_LOCK: &str = "DELETE FROM migration_lock WHERE name = 'schema' IF holder = ?";

/// How often a waiting migration checks the lock.
const LOCK_WAIT_MS: u64 = 200;
/// Longest time for a schema change: all nodes must agree on it, which takes longer than any read.
const CHANGE_MS_MAX: u64 = 30_000;
/// How long a migration waits for the lock: longer than the lock of a crashed holder lasts.
const LOCK_MS_MAX: u64 = 80_000;

/// Checks whether a new keyspace can be used, over ten seconds.
const KEYSPACE_ATTEMPTS_MAX: u32 = 50;

impl Migration {
    fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.statement.as_bytes()))
    }

    /// The statement without its comments.
    fn cql(&self) -> String {
        let lines = self.statement.lines().filter(|line| !line.trim_start().starts_with("--"));
        lines.collect::<Vec<_>>().join("\n").trim().trim_end_matches(';').to_owned()
    }
}

/// The result of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Names of the statements that were applied; empty if the schema was up to date.
    pub applied: Vec<String>,
    /// How this cluster could lose acknowledged rows, one sentence each.
    pub warnings: Vec<String>,
}

/// Creates the keyspace if it is missing, and applies missing statements.
///
/// Two can run at the same time. Fatal when the keyspace has a newer or different schema.
pub fn migrate<'a>(url: &'a str, config: &'a Config) -> BoxFuture<'a, Result<Migrated, Error>> {
    Box::pin(migrate_keyspace(url, config))
}

async fn migrate_keyspace(url: &str, config: &Config) -> Result<Migrated, Error> {
    let address = session::Address::parse(url)?;
    let session = session::connect(&address, config).await?;
    create_keyspace(&session, &address.keyspace, config).await?;
    enter_new(&session, &address.keyspace).await?;
    for (table, columns) in FIRST_TABLES {
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("foretell.{}.{table}", address.keyspace).as_bytes());
        run(&session, &format!("CREATE TABLE IF NOT EXISTS {table} ({columns}) WITH ID = {id}"), ()).await?;
    }
    let holder = Uuid::new_v4().to_string();
    take_lock(&session, &holder).await?;
    let applied = apply_missing(&session).await;
    let released = run(&session, RELEASE_LOCK, (&holder,)).await;
    let applied = applied?;
    released?;
    let refreshed = session.refresh_metadata().await;
    refreshed.map_err(|error| Error::retry("migrate the schema", error))?;
    Ok(Migrated { applied, warnings: warnings(&session, &address.keyspace).await? })
}

/// Sets the keyspace of the session.
pub(super) async fn enter(session: &Session, keyspace: &str) -> Result<(), Error> {
    session.use_keyspace(keyspace, true).await.map_err(|error| {
        Error::fatal("open the store", format!("keyspace {keyspace}: {error}; `foretell migrate` creates it"))
    })
}

/// Sets a keyspace that is just being created: Cassandra reports that it exists before it can be used.
async fn enter_new(session: &Session, keyspace: &str) -> Result<(), Error> {
    let mut attempt = 1;
    loop {
        match enter(session, keyspace).await {
            Err(_) if attempt < KEYSPACE_ATTEMPTS_MAX => attempt += 1,
            done => return done,
        }
        tokio::time::sleep(Duration::from_millis(LOCK_WAIT_MS)).await;
    }
}

/// Fatal when the schema differs from the one that this program was built with.
pub(super) async fn check(session: &Session) -> Result<(), Error> {
    let found = recorded(session).await?;
    let problem = compare(&found).or_else(|| {
        let missing: Vec<_> = missing(&found).map(|(_, migration)| migration.name).collect();
        (!missing.is_empty()).then(|| format!("it lacks {}: run `foretell migrate`", missing.join(", ")))
    });
    problem.map_or(Ok(()), |problem| Err(Error::fatal("check the schema", problem)))
}

/// How this cluster could lose acknowledged rows.
pub(super) async fn warnings(session: &Session, keyspace: &str) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    let state = session.get_cluster_state();
    let copies = state.get_keyspace(keyspace).and_then(|keyspace| copies(&keyspace.strategy));
    if copies.is_none_or(|copies| copies < 3) {
        let copies = copies.map_or_else(|| "an unknown number of".to_owned(), |copies| copies.to_string());
        warnings.push(format!(
            "Keyspace {keyspace} keeps {copies} replicas of each row: with fewer than 3, the failure of a node can \
             lose acknowledged rows, and the views must then be rebuilt."
        ));
    }
    if state.get_nodes_info().len() == 1 && setting(session, "commitlog_sync").await?.as_deref() == Some("periodic") {
        warnings.push(
            "The only Cassandra node syncs its commit log periodically: a crash can lose the latest acknowledged rows, \
             and the views must then be rebuilt. Set commitlog_sync to batch or group, or run three nodes."
                .to_owned(),
        );
    }
    Ok(warnings)
}

fn copies(strategy: &Strategy) -> Option<usize> {
    match strategy {
        Strategy::SimpleStrategy { replication_factor } => Some(*replication_factor),
        Strategy::NetworkTopologyStrategy { datacenter_repfactors } => datacenter_repfactors.values().min().copied(),
        _ => None,
    }
}

/// A setting of the node that answers the query.
async fn setting(session: &Session, name: &str) -> Result<Option<String>, Error> {
    let operation = "read a setting";
    let statement = "SELECT value FROM system_views.settings WHERE name = ?";
    let result = session.query_unpaged(statement, (name,)).await;
    let rows = result
        .map_err(|error| fault::execution(operation, &error))?
        .into_rows_result()
        .map_err(|error| fault::shape(operation, &error))?;
    let row = rows.maybe_first_row::<(Option<String>,)>().map_err(|error| fault::shape(operation, &error))?;
    Ok(row.and_then(|(value,)| value))
}

async fn create_keyspace(session: &Session, keyspace: &str, config: &Config) -> Result<(), Error> {
    let state = session.get_cluster_state();
    if state.get_keyspace(keyspace).is_some() {
        return Ok(());
    }
    let found: BTreeSet<_> = state.get_nodes_info().iter().filter_map(|node| node.datacenter.clone()).collect();
    let datacenter = match (&config.datacenter, found.iter().next(), found.len()) {
        (Some(named), _, _) => named.clone(),
        (None, Some(only), 1) => only.clone(),
        _ => {
            let found: Vec<_> = found.into_iter().collect();
            let detail = format!("name one of the data centres {found:?} in cassandra.datacenter");
            return Err(Error::reject("create the keyspace", detail));
        }
    };
    let quoted = datacenter.replace('\'', "''");
    let statement = format!(
        "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = \
         {{'class': 'NetworkTopologyStrategy', '{quoted}': {}}} AND durable_writes = true",
        config.replication_factor
    );
    run(session, &statement, ()).await
}

async fn apply_missing(session: &Session) -> Result<Vec<String>, Error> {
    let found = recorded(session).await?;
    if let Some(problem) = compare(&found) {
        return Err(Error::fatal("migrate the schema", problem));
    }
    let mut applied = Vec::new();
    for (version, migration) in missing(&found) {
        run(session, &migration.cql(), ()).await?;
        run(session, WRITE_RECORD, (version, migration.name, migration.digest())).await?;
        applied.push(migration.name.to_owned());
    }
    Ok(applied)
}

type Recorded = BTreeMap<i32, (String, String)>;

/// Name and digest of each applied version; empty if no table records them.
async fn recorded(session: &Session) -> Result<Recorded, Error> {
    let operation = "read the schema version";
    let result = match session.query_unpaged(READ_RECORD, ()).await {
        Ok(result) => result,
        Err(ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, _))) => {
            return Ok(Recorded::new());
        }
        Err(error) => return Err(fault::execution(operation, &error)),
    };
    let rows = result.into_rows_result().map_err(|error| fault::shape(operation, &error))?;
    let rows = rows.rows::<(i32, String, String)>().map_err(|error| fault::shape(operation, &error))?;
    rows.map(|row| row.map(|(version, name, digest)| (version, (name, digest))))
        .collect::<Result<_, _>>()
        .map_err(|error| fault::shape(operation, &error))
}

/// Version and statement of each migration that has not been applied.
fn missing(found: &Recorded) -> impl Iterator<Item = (i32, &'static Migration)> {
    (1..).zip(MIGRATIONS.iter()).filter(|(version, _)| !found.contains_key(version))
}

/// Why the applied versions do not match this program, if so.
fn compare(found: &Recorded) -> Option<String> {
    found.iter().find_map(|(version, (name, digest))| {
        let known = usize::try_from(*version).ok().and_then(|version| MIGRATIONS.get(version.checked_sub(1)?));
        match known {
            None => {
                Some(format!("{name} is unknown to this version: it belongs to a newer version, or to another program"))
            }
            Some(known) if known.digest() != *digest => {
                Some(format!("{name} was applied with a different content than {} has in this version", known.name))
            }
            Some(_) => None,
        }
    })
}

async fn take_lock(session: &Session, holder: &str) -> Result<(), Error> {
    let since = Instant::now();
    loop {
        let held = match lock(session, holder).await {
            Ok(true) => return Ok(()),
            Ok(false) => Error::retry("lock the schema", "another migration holds the lock"),
            // Nodes that did not answer in time may still have agreed; the next attempt shows it.
            Err(error) if error.kind == Kind::Retry => error,
            Err(error) => return Err(error),
        };
        if since.elapsed() > Duration::from_millis(LOCK_MS_MAX) {
            return Err(held);
        }
        tokio::time::sleep(Duration::from_millis(LOCK_WAIT_MS)).await;
    }
}

/// Whether the holder has the lock, from this or an earlier attempt.
async fn lock(session: &Session, holder: &str) -> Result<bool, Error> {
    let operation = "lock the schema";
    let result = session.query_unpaged(TAKE_LOCK, (holder,)).await;
    let rows = result
        .map_err(|error| fault::execution(operation, &error))?
        .into_rows_result()
        .map_err(|error| fault::shape(operation, &error))?;
    let row = rows.first_row::<Row>().map_err(|error| fault::shape(operation, &error))?;
    // Whether it was applied; if not, followed by the existing row: its key and its holder.
    let is_applied = row.columns.first().and_then(|column| column.as_ref().and_then(CqlValue::as_boolean));
    let found = row.columns.last().and_then(|column| column.as_ref().and_then(CqlValue::as_text));
    Ok(is_applied == Some(true) || found.is_some_and(|found| found == holder))
}

async fn run(
    session: &Session,
    statement: &str,
    values: impl scylla::serialize::row::SerializeRow,
) -> Result<(), Error> {
    let mut statement = Statement::new(statement);
    statement.set_request_timeout(Some(Duration::from_millis(CHANGE_MS_MAX)));
    let done = session.query_unpaged(statement, values).await;
    done.map(drop).map_err(|error| fault::execution("migrate the schema", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Recorded {
        (1..).zip(&MIGRATIONS).map(|(version, m)| (version, (m.name.to_owned(), m.digest()))).collect()
    }

    #[test]
    fn the_list_is_the_folder() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .expect("the folder is there")
            .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
            .collect();
        files.sort();
        let listed: Vec<_> = MIGRATIONS.iter().map(|migration| format!("{}.cql", migration.name)).collect();
        assert_eq!(files, listed);
        for (version, migration) in (1..).zip(&MIGRATIONS) {
            assert!(migration.name.starts_with(&format!("{version:04}_")), "{}", migration.name);
            let cql = migration.cql();
            assert!(cql.starts_with("CREATE TABLE IF NOT EXISTS") && !cql.contains(';'), "one statement: {cql}");
        }
    }

    #[test]
    fn only_the_same_schema_is_ours() {
        assert_eq!(compare(&all()), None);
        assert_eq!(missing(&all()).count(), 0);
        let mut older = all();
        older.remove(&3);
        assert_eq!(compare(&older), None);
        assert_eq!(missing(&older).map(|(version, _)| version).collect::<Vec<_>>(), [3]);
        let mut newer = all();
        newer.insert(4, ("0004_more".to_owned(), "00".to_owned()));
        assert!(compare(&newer).is_some_and(|problem| problem.contains("newer")));
        let mut changed = all();
        changed.insert(2, ("0002_checkpoints".to_owned(), "00".to_owned()));
        assert!(compare(&changed).is_some_and(|problem| problem.contains("a different content")));
    }
}
