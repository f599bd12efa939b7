//! In place of the log on Kafka, in a build without the feature `kafka`. The settings reject its URLs before.

use crate::config::{Config, WITHOUT_KAFKA};
use foretell_ports::Error;
use foretell_ports::log::Log;
use foretell_ports::store::Store;
use std::sync::Arc;

/// Rejects.
pub(super) async fn open(_: &Config, _: &dyn Store) -> Result<Arc<dyn Log>, Error> {
    Err(Error::reject("open the log", WITHOUT_KAFKA))
}

/// Rejects.
pub(super) async fn migrate(_: &Config, _: &dyn Store) -> Result<Vec<String>, Error> {
    Err(Error::reject("create topics", WITHOUT_KAFKA))
}
