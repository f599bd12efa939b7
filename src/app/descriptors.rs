//! The limit of open files, and the connections that it allows.
//!
//! Without a free descriptor, a process can neither accept a connection nor open a file of the log or the store, and
//! the latter ends the process. So the soft limit is raised to the hard one at start, and a `connections_max` that
//! would leave too few for log and store is rejected.

use crate::config::Config;
use foretell_events::Topic;
use foretell_service::http;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Reserved for the store, brokers and nodes, data files about addresses, operators, and files that libraries open
/// briefly.
const OTHERS: u64 = 512;

/// The limit to request if there is no hard limit.
const UNLIMITED: u64 = 10_240;

/// Raises the soft limit of open files to the hard one; returns the new soft limit, none if there is no limit.
pub fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // Without a hard limit, some systems still reject an unlimited soft one.
    let mut wanted = [limit.maximum, Some(UNLIMITED)].into_iter();
    let raised = wanted.find(|current| setrlimit(Resource::Nofile, Rlimit { current: *current, ..limit }).is_ok());
    raised.unwrap_or(limit.current)
}

/// Whether this many open files are enough for the settings; if not, returns what to do.
///
/// # Errors
/// A sentence for an operator.
pub fn check(limit: Option<u64>, config: &Config) -> Result<(), String> {
    let (connections, others) = (config.http.connections_max as u64, others(config));
    let Some(limit) = limit.filter(|limit| connections.saturating_add(others) > *limit) else { return Ok(()) };
    let needed = connections.saturating_add(others);
    Err(format!(
        "http.connections_max is {connections}, and this process may have {limit} open files (descriptors), of which \
         it keeps {others} for everything else: set http.connections_max to {} or less, or raise the limit of open \
         files to {needed} (ulimit -n, LimitNOFILE)",
        limit.saturating_sub(others)
    ))
}

/// Open files that are not connections.
fn others(config: &Config) -> u64 {
    let is_embedded = super::disk_directory(&config.log).is_some();
    // One to append to, and one to read.
    let files = 2 * Topic::ALL.len() as u64 * u64::from(config.topics.embedded_partitions);
    OTHERS + http::RESERVE as u64 + if is_embedded { files } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, load};

    #[test]
    fn more_connections_than_open_files_allow_are_refused_with_both_numbers() {
        let mut config = load(Layers::default()).unwrap();
        let others = others(&config);
        assert_eq!(others, 512 + 32 + 2 * 6 * 4);
        assert!(check(None, &config).is_ok());
        assert!(check(Some(4_096 + others), &config).is_ok());
        let refused = check(Some(1_024), &config).unwrap_err();
        assert!(refused.contains("connections_max is 4096") && refused.contains("1024"), "{refused}");
        assert!(refused.contains(&format!("to {} or less", 1_024 - others)), "{refused}");
        config.http.connections_max = (1_024 - others) as usize;
        assert!(check(Some(1_024), &config).is_ok());
        config.http.connections_max += 1;
        assert!(check(Some(1_024), &config).is_err());
        config.log = "kafka://localhost:9092".into();
        assert!(check(Some(1_024), &config).is_ok(), "a log elsewhere has no files here");
        assert!(check(Some(8), &config).unwrap_err().contains("to 0 or less"));
    }

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise(), hard);
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
