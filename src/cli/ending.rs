//! How a command ends early: by a failure, or by a signal.

use crate::config;
use crate::ops::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// What ended a command early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Invalid settings.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The operation failed.
    #[error(transparent)]
    Work(#[from] Error),
    /// Anything else, in a sentence.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// Whether the reader of the output has closed it, as `| head` does: not a failure of the command.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Work(Error::File(_, cause)) if cause.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// Rejects a name that no tenant can have.
pub(super) fn check_tenant(tenant: &str) -> Result<(), Failure> {
    if foretell_events::codec::is_tenant(tenant) {
        return Ok(());
    }
    Err(Failure::Other(format!("{tenant:?} is not a tenant: 1 to 63 of a-z, 0-9 and -")))
}

impl From<std::io::Error> for Failure {
    fn from(cause: std::io::Error) -> Self {
        Self::Work(cause.into())
    }
}

impl From<foretell_ports::Error> for Failure {
    fn from(error: foretell_ports::Error) -> Self {
        Self::Work(error.into())
    }
}

/// Runs work to its end or until a signal; its temporary files are removed in both cases.
pub(super) async fn unless_signalled(work: impl Future<Output = Result<(), Error>>) -> Result<(), Failure> {
    let signalled = CancellationToken::new();
    let _listening = AbortOnDropHandle::new(tokio::spawn(on_signal(signalled.clone())));
    tokio::select! {
        done = work => Ok(done?),
        () = signalled.cancelled() => Err(Failure::Other("interrupted".into())),
    }
}

/// Cancels on SIGTERM, SIGINT and SIGHUP; a terminal sends the last one when it is closed.
pub(crate) async fn on_signal(shutdown: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int), Ok(mut hangup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        tracing::warn!("cannot listen for signals");
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        _ = hangup.recv() => {}
    }
    tracing::info!("draining");
    shutdown.cancel();
}
