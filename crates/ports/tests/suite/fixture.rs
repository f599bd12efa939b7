//! A backend under test, and how long its calls may take.

use std::any::Any;
use std::future::Future;
use std::time::Duration;

/// A backend under test, and what must live as long as it does.
pub(crate) struct Fixture<T: ?Sized> {
    pub(crate) port: std::sync::Arc<T>,
    #[allow(dead_code, reason = "held until the test ends")]
    pub(crate) keep: Box<dyn Any + Send>,
}

/// Longest wait of a test for a guaranteed event: a rebalance of a cluster takes seconds.
const WAIT: Duration = Duration::from_secs(60);
/// How long nothing must happen to count as nothing.
const QUIET: Duration = Duration::from_millis(200);

/// The result of a call that must return.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT, future).await.expect("promised, and did not come in time")
}

/// Whether a call does not return.
pub(crate) async fn quiet<T>(future: impl Future<Output = T>) -> bool {
    tokio::time::timeout(QUIET, future).await.is_err()
}
