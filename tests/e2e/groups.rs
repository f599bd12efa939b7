//! Consumer groups as the brokers see them.

use crate::deployment::Deployment;
use crate::process::PATIENCE;
use foretell_domain::address::Family;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

/// The number of groups: one per family.
pub const GROUPS: usize = Family::ALL.len();

/// The number of members of each group of the deployment.
pub async fn members(deployment: &Deployment) -> Vec<usize> {
    let (brokers, prefix) = (deployment.brokers(), deployment.config().topics.prefix);
    let counted = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
        let groups = client.fetch_group_list(None, PATIENCE).expect("an answer");
        let ours = groups.groups().iter().filter(|group| group.name().starts_with(&prefix));
        ours.map(|group| group.members().len()).collect()
    });
    counted.await.expect("no panic")
}
