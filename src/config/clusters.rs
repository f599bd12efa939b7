//! Which URLs a build can open, and the settings of clusters, which builds without cluster support read and ignore.

/// How a Cassandra cluster is reached.
#[cfg(feature = "cassandra")]
pub type Cassandra = foretell_cassandra::Config;
/// How a Cassandra cluster would be reached.
#[cfg(not(feature = "cassandra"))]
pub type Cassandra = ignored::Ignored;

/// How a Kafka cluster is reached.
#[cfg(feature = "kafka")]
pub type Kafka = foretell_kafka::Config;
/// How a Kafka cluster would be reached.
#[cfg(not(feature = "kafka"))]
pub type Kafka = ignored::Ignored;

/// Why a log on Kafka cannot be used.
#[cfg(not(feature = "kafka"))]
pub(crate) const WITHOUT_KAFKA: &str =
    "this build does not support Kafka; build it with the feature kafka, which is on by default";
/// Why a store on Cassandra cannot be used.
#[cfg(not(feature = "cassandra"))]
pub(crate) const WITHOUT_CASSANDRA: &str =
    "this build does not support Cassandra; build it with the feature cassandra, which is on by default";

/// Whether a URL names a log or store in memory that this build can open.
fn is_in_memory(url: &str) -> bool {
    cfg!(feature = "memory") && url.starts_with("memory:")
}

/// Rejects the URL of a log that this build cannot open.
pub(super) fn check_log(url: &str) -> Result<(), String> {
    if is_in_memory(url) {
        return Ok(());
    }
    #[cfg(not(feature = "kafka"))]
    if url.starts_with("kafka://") {
        return Err(WITHOUT_KAFKA.to_owned());
    }
    super::urls::log(url)
}

/// Rejects the URL of a store that this build cannot open.
pub(super) fn check_store(url: &str) -> Result<(), String> {
    if is_in_memory(url) {
        return Ok(());
    }
    #[cfg(not(feature = "cassandra"))]
    if url.starts_with("cassandra://") {
        return Err(WITHOUT_CASSANDRA.to_owned());
    }
    super::urls::store(url)?;
    #[cfg(feature = "cassandra")]
    foretell_cassandra::check_url(url)?;
    Ok(())
}

#[cfg(not(all(feature = "kafka", feature = "cassandra")))]
mod ignored {
    use serde::de::IgnoredAny;
    use serde::ser::SerializeMap;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Settings that this build does not use: any value is accepted, so that one file serves every build, and none is
    /// kept.
    #[derive(Debug, Clone)]
    pub struct Ignored;

    impl<'de> Deserialize<'de> for Ignored {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            IgnoredAny::deserialize(deserializer).map(|_| Self)
        }
    }

    impl Serialize for Ignored {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_map(Some(0))?.end()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_accepted_if_the_build_has_its_backend() {
        assert_eq!(check_log("kafka://a:9092").is_ok(), cfg!(feature = "kafka"));
        assert_eq!(check_store("cassandra://a:9042/foretell").is_ok(), cfg!(feature = "cassandra"));
        assert_eq!(check_log("memory:a").is_ok() && check_store("memory:a").is_ok(), cfg!(feature = "memory"));
        assert_eq!((check_log("disk:./data"), check_store("disk:./data")), (Ok(()), Ok(())));
    }
}
