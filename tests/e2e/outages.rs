//! Dependencies fail in the middle of a fold and come back: the broker, a node of a Cassandra ring, and enough of its
//! nodes that no quorum is left.

use crate::deployment::Deployment;
use crate::process::{Service, WORKER, until};
use crate::services::Services;
use crate::story::Story;
use crate::stream::{Stream, report};
use foretell_ports::clock::{Clock, System};

const RING: [&str; 3] = ["cassandra-1", "cassandra-2", "cassandra-3"];
/// Records that must be folded while a node is unavailable, to count as progress.
const GOES_ON: i64 = 300;

/// The outages, in this order.
#[derive(Debug, Clone, Copy)]
enum Outage {
    /// The only broker is killed and started again.
    Broker,
    /// A node of the ring is killed, and started again after the fold has continued without it.
    Node(&'static str),
    /// The same, and meanwhile the process is killed and restarted as well.
    NodeAndProcess(&'static str),
    /// Two nodes of three are killed, and started again when the fold waits for them.
    Quorum([&'static str; 2]),
}

const OUTAGES: [Outage; 6] = [
    Outage::Broker,
    Outage::Node(RING[0]),
    Outage::Broker,
    Outage::NodeAndProcess(RING[2]),
    Outage::Quorum([RING[0], RING[1]]),
    Outage::Broker,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_and_a_ring_that_come_and_go_lose_and_repeat_nothing() {
    let services = Services::start(1, 3).await;
    let deployment = Deployment::on(&services);
    let mut worker = Service::ready(&deployment, &WORKER).await;
    let stream = Stream::open(&deployment, Story::new(System.now_ms(), 12_000, 2_000), 1).await;
    for (round, outage) in (0..).zip(OUTAGES) {
        let at = stream.middle((round, OUTAGES.len() as u64), &stream.places()).await;
        let goes_on = || stream.advanced("it continues without a node", &at, GOES_ON);
        match outage {
            Outage::Broker => {
                services.kill("kafka-1");
                services.restart("kafka-1").await;
            }
            Outage::Node(node) => {
                services.kill(node);
                goes_on().await;
                services.restart(node).await;
            }
            Outage::NodeAndProcess(node) => {
                services.kill(node);
                worker.process.kill();
                worker = Service::start(&deployment, &WORKER);
                goes_on().await;
                services.restart(node).await;
            }
            Outage::Quorum(nodes) => {
                let logged = worker.process.stderr().len();
                nodes.iter().for_each(|node| services.kill(node));
                until("the fold waits", async || {
                    worker.process.stderr()[logged..].contains("waiting for a dependency").then_some(())
                })
                .await;
                for node in nodes {
                    services.restart(node).await;
                }
            }
        }
        assert_eq!(worker.process.ended(), None, "{outage:?}: it ended: {}", worker.process.stderr());
    }
    // What only two of three nodes have stored must be visible through any other two.
    services.kill(RING[1]);
    let came = stream.end(&deployment, vec![worker.process]).await;
    report(&format!("broker and ring, in mid-fold: {OUTAGES:?}, and verified without {}; {came}", RING[1]));
}
