//! Replaces the store on Cassandra in a build without the feature `cassandra`. The settings already reject its URLs.

use crate::config::Config;
use crate::config::clusters::WITHOUT_CASSANDRA;
use foretell_ports::Error;
use foretell_ports::store::Store;
use std::sync::Arc;

/// Always returns a Reject.
pub(super) async fn open(_: &Config) -> Result<(Arc<dyn Store>, Vec<String>), Error> {
    Err(Error::reject("open the store", WITHOUT_CASSANDRA))
}

/// Always returns a Reject.
pub(super) async fn migrate(_: &Config) -> Result<Vec<String>, Error> {
    Err(Error::reject("create the schema", WITHOUT_CASSANDRA))
}
