//! What a caller may do when a port fails.
//!
//! Log and store have many causes of failure and few reactions to it. An error therefore carries its
//! [`Kind`], which is the decision, the operation that failed, and a detail for the operator's log. Clients of
//! the HTTP API never see the detail.

use std::fmt;

/// What the caller does with a failed operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The weather is bad: wait, then do the same again. Nothing was promised, something may have been done.
    Retry,
    /// The input is bad: the same call fails again for ever. Answer the one who asked.
    Reject,
    /// The ground is bad: going on would break a promise. End, and say why.
    Fatal,
}

/// The failure of one port operation.
#[derive(Debug, Clone)]
pub struct Error {
    /// What the caller does about it.
    pub kind: Kind,
    /// The operation that failed, as in `append` or `open the store`.
    pub operation: &'static str,
    /// Names, positions and the cause, for a person.
    pub detail: String,
}

impl Error {
    /// A failure that passes: the caller waits and repeats.
    pub fn retry(operation: &'static str, detail: impl fmt::Display) -> Self {
        Self { kind: Kind::Retry, operation, detail: detail.to_string() }
    }

    /// A failure of the input: the caller answers whoever sent it.
    pub fn reject(operation: &'static str, detail: impl fmt::Display) -> Self {
        Self { kind: Kind::Reject, operation, detail: detail.to_string() }
    }

    /// A failure that nobody can wait for: the process says so and ends.
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
