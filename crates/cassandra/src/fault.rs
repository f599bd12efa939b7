//! Maps the driver's errors to the error kinds of the store.

use foretell_ports::{Error, Kind};
use scylla::errors::{
    DbError, ExecutionError, NewSessionError, NextPageError, NextRowError, PagerExecutionError, PrepareError,
    RequestAttemptError, RequestError,
};

/// The error for a session that was not created.
pub(super) fn connection(error: &NewSessionError) -> Error {
    let operation = "connect to cassandra";
    match error {
        NewSessionError::IllegalConfig(_) | NewSessionError::EmptyKnownNodesList => Error::fatal(operation, error),
        _ => Error::retry(operation, error),
    }
}

/// A statement was not prepared: the cluster is unavailable, or its schema is not the one that was checked.
pub(super) fn preparation(error: &PrepareError) -> Error {
    let operation = "prepare a statement";
    match error {
        PrepareError::AllAttemptsFailed { first_attempt } => of(attempt(first_attempt), operation, error),
        _ => Error::retry(operation, error),
    }
}

/// A statement failed.
pub(super) fn execution(operation: &'static str, error: &ExecutionError) -> Error {
    let kind = match error {
        ExecutionError::BadQuery(_) => Kind::Reject,
        ExecutionError::LastAttemptError(last) => attempt(last),
        ExecutionError::EmptyPlan | ExecutionError::UseKeyspaceError(_) => Kind::Fatal,
        _ => Kind::Retry,
    };
    of(kind, operation, error)
}

/// The first page was not received.
pub(super) fn first_page(operation: &'static str, error: &PagerExecutionError) -> Error {
    let kind = match error {
        PagerExecutionError::NextPageError(next) => page(next),
        PagerExecutionError::SerializationError(_) => Kind::Reject,
        _ => Kind::Retry,
    };
    of(kind, operation, error)
}

/// A later row was not received.
pub(super) fn next_row(operation: &'static str, error: &NextRowError) -> Error {
    let kind = match error {
        NextRowError::NextPageError(next) => page(next),
        _ => Kind::Fatal,
    };
    of(kind, operation, error)
}

/// The result does not have the shape that the schema defines.
pub(super) fn shape(operation: &'static str, error: &dyn std::fmt::Display) -> Error {
    Error::fatal(operation, error)
}

fn page(error: &NextPageError) -> Kind {
    match error {
        NextPageError::RequestFailure(RequestError::LastAttemptError(last)) => attempt(last),
        NextPageError::RequestFailure(_) => Kind::Retry,
        _ => Kind::Fatal,
    }
}

fn attempt(error: &RequestAttemptError) -> Kind {
    match error {
        RequestAttemptError::DbError(error, _) => database(error),
        RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => Kind::Reject,
        RequestAttemptError::CqlResultParseError(_) | RequestAttemptError::RepreparedIdChanged { .. } => Kind::Fatal,
        _ => Kind::Retry,
    }
}

fn database(error: &DbError) -> Kind {
    match error {
        DbError::Invalid => Kind::Reject,
        DbError::SyntaxError
        | DbError::AlreadyExists { .. }
        | DbError::FunctionFailure { .. }
        | DbError::AuthenticationError
        | DbError::Unauthorized
        | DbError::ConfigError
        | DbError::ProtocolError => Kind::Fatal,
        _ => Kind::Retry,
    }
}

fn of(kind: Kind, operation: &'static str, error: &dyn std::fmt::Display) -> Error {
    Error { kind, operation, detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scylla::errors::WriteType;
    use scylla::statement::Consistency;

    #[test]
    fn timeouts_are_transient_and_invalid_values_are_rejected() {
        let timeout = DbError::WriteTimeout {
            consistency: Consistency::LocalQuorum,
            received: 1,
            required: 2,
            write_type: WriteType::UnloggedBatch,
        };
        for (error, kind) in [
            (timeout, Kind::Retry),
            (DbError::Overloaded, Kind::Retry),
            (DbError::ServerError, Kind::Retry),
            (DbError::Invalid, Kind::Reject),
            (DbError::Unauthorized, Kind::Fatal),
            (DbError::SyntaxError, Kind::Fatal),
        ] {
            let last = RequestAttemptError::DbError(error.clone(), String::new());
            let found = execution("write", &ExecutionError::LastAttemptError(last)).kind;
            assert_eq!(found, kind, "{error:?}");
        }
    }
}
