//! Maps librdkafka's error codes to the error kinds of the log.

use foretell_ports::Error;
use foretell_ports::log::Extent;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Converts a partition number: Kafka uses signed numbers.
pub(super) fn partition(partition: u32) -> Result<i32, Error> {
    i32::try_from(partition).map_err(|_| Error::reject("name a partition", partition))
}

/// The error for a record that was not delivered.
pub(super) fn delivery(error: &KafkaError) -> Error {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            Error::reject("append", error)
        }
        _ => Error::retry("append", error),
    }
}

/// Whether brokers cannot be reached. librdkafka recovers from this, and logs it itself.
pub(super) fn is_outage(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(error.rdkafka_error_code(), Some(Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve))
}

/// What an error of a consumer means for its owner; none if librdkafka recovers by itself.
pub(super) fn consumption(topic: &str, partition: Option<i32>, error: &KafkaError) -> Option<Error> {
    use RDKafkaErrorCode as Code;
    let at = partition.map_or_else(|| topic.to_owned(), |partition| format!("{topic}[{partition}]"));
    let read = "read the log";
    match (error, error.rdkafka_error_code()) {
        (_, Some(Code::AutoOffsetReset | Code::OffsetOutOfRange)) => Some(out_of_range(&at, &error.to_string())),
        (_, Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition)) => {
            Some(Error::fatal(read, format!("{at} no longer exists: {error}")))
        }
        (KafkaError::MessageConsumptionFatal(_), _) => Some(Error::retry(read, format!("{at}: {error}"))),
        (
            _,
            Some(
                Code::PollExceeded
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::Authentication
                | Code::BadMessage
                | Code::Fatal,
            ),
        ) => Some(Error::retry(read, format!("{at}: {error}"))),
        _ => None,
    }
}

/// Fatal unless a reader may start at `from`. The error states the exact offsets; librdkafka only returns a code.
pub(super) fn check_range(topic: &str, partition: i32, from: i64, extent: Extent) -> Result<(), Error> {
    if (extent.start..=extent.end).contains(&from) {
        return Ok(());
    }
    let held = format!("offset {from} was requested; the partition contains {} to {}", extent.start, extent.end);
    Err(out_of_range(&format!("{topic}[{partition}]"), &held))
}

/// The error for a start offset that is not in the log.
fn out_of_range(at: &str, detail: &str) -> Error {
    let explanation = format!(
        "{at} does not contain the requested offset: {detail}. Either retention has deleted \
         records that were not folded, or the topic was re-created. Nothing was skipped; see docs/operations/troubleshoot.md"
    );
    Error::fatal("read the log", explanation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_ports::Kind;

    #[test]
    fn codes_decide_what_the_owner_does() {
        use RDKafkaErrorCode as Code;
        for (code, kind) in [
            (Code::AutoOffsetReset, Some(Kind::Fatal)),
            (Code::OffsetOutOfRange, Some(Kind::Fatal)),
            (Code::UnknownTopicOrPartition, Some(Kind::Fatal)),
            (Code::PollExceeded, Some(Kind::Retry)),
            (Code::TopicAuthorizationFailed, Some(Kind::Retry)),
            (Code::BrokerTransportFailure, None),
            (Code::AllBrokersDown, None),
            (Code::NotLeaderForPartition, None),
        ] {
            let error = KafkaError::MessageConsumption(code);
            let verdict = consumption("logins", Some(1), &error);
            assert_eq!(verdict.map(|error| error.kind), kind, "{code:?}");
            assert!(kind.is_none() || !is_outage(&error), "{code:?}: an error that ends a consumer is logged");
        }
    }

    #[test]
    fn only_size_is_the_callers_fault() {
        for (code, kind) in [
            (RDKafkaErrorCode::MessageSizeTooLarge, Kind::Reject),
            (RDKafkaErrorCode::MessageTimedOut, Kind::Retry),
            (RDKafkaErrorCode::NotEnoughReplicas, Kind::Retry),
        ] {
            assert_eq!(delivery(&KafkaError::MessageProduction(code)).kind, kind, "{code:?}");
        }
    }
}
