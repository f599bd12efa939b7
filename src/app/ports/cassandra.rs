//! The store on Cassandra.

use crate::config::Config;
use foretell_cassandra::{Cassandra, schema};
use foretell_ports::Error;
use foretell_ports::store::Store;
use std::sync::Arc;

/// Opens the store, and returns notices about its keyspace for operators. Fatal if its schema is not valid.
pub(super) async fn open(config: &Config) -> Result<(Arc<dyn Store>, Vec<String>), Error> {
    let cassandra = Cassandra::open(&config.store, &config.cassandra).await?;
    let warnings = cassandra.warnings().await?;
    Ok((Arc::new(cassandra), warnings))
}

/// Creates missing parts of the schema; returns what was done, and notices for operators.
pub(super) async fn migrate(config: &Config) -> Result<Vec<String>, Error> {
    let migrated = schema::migrate(&config.store, &config.cassandra).await?;
    let applied = migrated.applied.into_iter().map(|name| format!("applied {name}"));
    Ok(applied.chain(migrated.warnings).collect())
}
