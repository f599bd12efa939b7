//! Consumer groups as the brokers see them.

use crate::deployment::Deployment;
use crate::process::PATIENCE;
use foretell_domain::address::Family;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

/// How many groups there are: one a family.
pub const GROUPS: usize = Family::ALL.len();

/// How many members each group of the deployment has.
pub async fn members(deployment: &Deployment) -> Vec<usize> {
    let (brokers, prefix) = (deployment.brokers(), deployment.config().topics.prefix);
    let asked = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
        let groups = client.fetch_group_list(None, PATIENCE).expect("an answer");
        let ours = groups.groups().iter().filter(|group| group.name().starts_with(&prefix));
        ours.map(|group| group.members().len()).collect()
    });
    asked.await.expect("no panic")
}
