//! Commands of operators: import facts, inspect rows, create schema and topics, report on past decisions.
//!
//! A data directory belongs to its `serve`. A command that finds an instance serving it sends requests to that
//! instance, over the socket in the directory; otherwise it opens the directory, or the clusters, itself. Both use the
//! same routes: see [`access`]. Work that takes long is a job: see [`jobs`].

pub mod access;
pub mod backup;
pub mod dead_letters;
pub mod import;
pub mod inspect;
pub mod jobs;
pub mod rebuild;
pub mod repartition;
pub mod report;
pub mod train;
pub mod verify;

/// Why a command failed: a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port.
    #[error(transparent)]
    Port(#[from] foretell_ports::Error),
    /// A file to read.
    #[error(transparent)]
    Source(#[from] foretell_lab::source::Error),
    /// A file to write, or the terminal.
    #[error("{0}: {1}")]
    File(String, #[source] std::io::Error),
    /// The answer of a service.
    #[error("{0}")]
    Answer(String),
}

impl From<std::io::Error> for Error {
    fn from(cause: std::io::Error) -> Self {
        Self::File("cannot write the output".into(), cause)
    }
}
