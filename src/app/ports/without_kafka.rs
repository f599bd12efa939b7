//! Replaces the log on Kafka in a build without the feature `kafka`. The settings already reject its URLs.

use crate::config::Config;
use crate::config::clusters::WITHOUT_KAFKA;
use foretell_ports::Error;
use foretell_ports::log::LogAdmin;
use foretell_ports::store::Store;
use std::sync::Arc;

/// Always returns a Reject.
pub(super) async fn open(_: &Config, _: &dyn Store) -> Result<Arc<dyn LogAdmin>, Error> {
    Err(Error::reject("open the log", WITHOUT_KAFKA))
}

/// Always returns a Reject.
pub(super) async fn migrate(_: &Config, _: &dyn Store) -> Result<Vec<String>, Error> {
    Err(Error::reject("create topics", WITHOUT_KAFKA))
}
