//! What a caller may do when a port fails.
//!
//! Log and store can fail for many reasons, but a caller has few ways to react. An error therefore carries its
//! [`Kind`], which determines the reaction, the operation that failed, and a detail for the operator's log. Clients
//! of the HTTP API never see the detail.

use std::fmt;

/// How the caller handles a failed operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Transient: wait and retry. The operation is not acknowledged, but parts of it may have been applied.
    Retry,
    /// Invalid input: the same call always fails. Report the error to the client.
    Reject,
    /// Unrecoverable: continuing would break a guarantee. End the process and log the reason.
    Fatal,
}

/// The failure of one port operation.
#[derive(Debug, Clone)]
pub struct Error {
    /// How the caller handles it.
    pub kind: Kind,
    /// The operation that failed, as in `append` or `open the store`.
    pub operation: &'static str,
    /// Names, positions and the cause, for the operator.
    pub detail: String,
}

impl Error {
    /// A transient failure: the caller waits and retries.
    pub fn retry(operation: &'static str, detail: impl fmt::Display) -> Self {
        Self { kind: Kind::Retry, operation, detail: detail.to_string() }
    }

    /// An invalid input: the caller reports the error to its client.
    pub fn reject(operation: &'static str, detail: impl fmt::Display) -> Self {
        Self { kind: Kind::Reject, operation, detail: detail.to_string() }
    }

    /// An unrecoverable failure: the process logs it and ends.
    pub fn fatal(operation: &'static str, detail: impl fmt::Display) -> Self {
        Self { kind: Kind::Fatal, operation, detail: detail.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.operation, self.detail)
    }
}

impl std::error::Error for Error {}
