//! Separate services for tests that break them: no other test has topics or rows on them.
//!
//! They are started by `scripts/services`, which stops them when its command ends: here, when its standard input is
//! closed. They therefore end with the test, however it ends.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services");
/// What the script runs when all nodes are ready: prints their addresses, and waits for the end of its input.
const TELL_AND_WAIT: &str = r#"echo "$KAFKA_BROKERS $CASSANDRA_NODES $SERVICES_RUN"; exec cat"#;

/// Running brokers and nodes.
pub struct Services {
    script: Child,
    /// `host:port,...` of all brokers.
    pub brokers: String,
    /// `host:port,...` of all Cassandra nodes.
    pub nodes: String,
    run: PathBuf,
}

impl Services {
    /// Starts this many brokers and Cassandra nodes, and waits until they accept clients.
    pub async fn start(brokers: u32, nodes: u32) -> Self {
        let started = tokio::task::spawn_blocking(move || {
            let mut script = Command::new(SCRIPT)
                .args(["up", "-k", &brokers.to_string(), "-c", &nodes.to_string(), "--", "sh", "-c", TELL_AND_WAIT])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("scripts/services runs");
            let mut printed = String::new();
            let stdout = script.stdout.as_mut().expect("it is piped");
            BufReader::new(stdout).read_line(&mut printed).expect("readable");
            let mut addresses = printed.split_whitespace().map(str::to_owned);
            let mut next = || addresses.next().expect("scripts/services starts them");
            Self { script, brokers: next(), nodes: next(), run: next().into() }
        });
        started.await.expect("no panic")
    }

    /// Kills a node as a power loss would, `kafka-1` or `cassandra-3`.
    pub fn kill(&self, node: &str) {
        let pid = std::fs::read_to_string(self.run.join(node).join("pid")).expect("a node that was started");
        let killed = Command::new("sh").arg("-c").arg(format!("kill -9 {pid}")).status();
        assert!(killed.expect("a shell").success(), "{node} had ended by itself");
    }

    /// Starts a killed node again, with its data and ports, and waits until it accepts clients.
    pub async fn restart(&self, node: &str) {
        let mut start = Command::new(SCRIPT);
        start.args(["start".as_ref(), self.run.as_os_str(), node.as_ref()]).stdin(Stdio::null());
        // The script has a timeout of its own.
        let ended = tokio::task::spawn_blocking(move || start.status().expect("scripts/services runs"));
        let ended = ended.await.expect("no panic");
        assert!(ended.success(), "{node} was not started again: {ended}");
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // Its command ends with its input, and the nodes with its command.
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}
