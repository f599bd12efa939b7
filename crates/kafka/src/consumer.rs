//! Starts consumers: one librdkafka client and one poll thread for each membership and each reader without a group.

use super::client::{Query, Settings};
use super::group::{Group, Limits};
use super::lane::{Lane, Shared};
use super::{TopicNames, fault};
use async_trait::async_trait;
use foretell_events::Topic;
use foretell_ports::Error;
use foretell_ports::log::{Assigned, Membership, Reader};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Longest sleep of a poll thread: polling is how the member stays in the group.
const POLL_MS_MAX: u64 = 100;
/// Assignments that have not been received yet.
const ASSIGNED_MAX: usize = 1024;
/// How long a leaving member waits until the group has registered it; without brokers that never happens.
const LEAVE_MS_MAX: u64 = 5_000;

/// The start of a reader without a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) topic: Topic,
    pub(super) partition: u32,
    pub(super) from: i64,
}

/// Joins a group.
pub(super) fn subscribe(
    settings: &Settings,
    names: &TopicNames,
    group: &str,
    topic: Topic,
) -> Result<Box<dyn Membership>, Error> {
    let (sender, assigned) = mpsc::channel(ASSIGNED_MAX);
    let context = Group::new(topic, names, limits(settings), sender);
    let shared = Arc::clone(&context.shared);
    let group = names.of_group(group);
    let consumer = create(settings, &group, context)?;
    let failed = |error| Error::retry("join a group", error);
    consumer.subscribe(&[&names.of(topic)]).map_err(failed)?;
    let ended = spawn(consumer, format!("kafka {group}"))?;
    Ok(Box::new(Member { group, assigned, shared, ended }))
}

/// Reads one partition without a group. librdkafka requires a group id, but no group is joined.
pub(super) async fn read(
    settings: &Settings,
    names: &TopicNames,
    at: At,
    query: &Arc<Query>,
) -> Result<Box<dyn Reader>, Error> {
    let name = names.of(at.topic);
    let partition = fault::partition(at.partition)?;
    let extent = Query::extent(query, name.clone(), at.partition).await?;
    fault::check_range(&name, partition, at.from, extent)?;
    let (sender, _) = mpsc::channel(1);
    let context = Group::new(at.topic, names, limits(settings), sender);
    let (lane, reader) = Lane::open(at.topic, partition, &context.shared);
    let consumer = create(settings, &names.of_reader(), context)?;
    consumer.context().open(lane, partition, at.from)?;
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(&name, partition, Offset::Offset(at.from))
        .and_then(|()| consumer.assign(&assignment))
        .map_err(|error| Error::retry("read the log", error))?;
    drop(spawn(consumer, format!("kafka {name}[{partition}]"))?);
    Ok(Box::new(reader.owning()))
}

fn limits(settings: &Settings) -> Limits {
    let config = settings.config();
    Limits {
        start: Duration::from_millis(u64::from(config.start_ms)),
        drain: Duration::from_millis(u64::from(config.drain_ms)),
        request: settings.request_timeout(),
    }
}

fn create(settings: &Settings, group: &str, context: Group) -> Result<Arc<BaseConsumer<Group>>, Error> {
    let signal = Arc::clone(&context.shared.signal);
    let mut consumer: BaseConsumer<Group> = settings
        .consumer(group)
        .create_with_context(context)
        .map_err(|error| Error::fatal("create a consumer", error))?;
    consumer.set_nonempty_callback(move || signal.raise());
    let consumer = Arc::new(consumer);
    consumer.context().belongs_to(&consumer);
    Ok(consumer)
}

/// Starts the poll thread of a consumer; the receiver fails when the thread, and with it the consumer, has ended.
fn spawn(consumer: Arc<BaseConsumer<Group>>, name: String) -> Result<oneshot::Receiver<()>, Error> {
    let (running, ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        run(consumer);
        drop(running);
    });
    thread.map(|_| ended).map_err(|error| Error::retry("start a poll thread", error))
}

fn run(consumer: Arc<BaseConsumer<Group>>) {
    let group = Arc::clone(consumer.context());
    while !group.shared.ended() {
        if !group.iterate(&consumer) {
            group.shared.signal.wait(Duration::from_millis(POLL_MS_MAX));
        }
    }
    group.close();
    // Dropping the last handle leaves the group, which revokes the remaining partitions through the same callback, and
    // waits until the brokers have registered it.
    drop(consumer);
}

/// A member of a group.
struct Member {
    group: String,
    assigned: mpsc::Receiver<Assigned>,
    shared: Arc<Shared>,
    /// Fails when the poll thread has ended.
    ended: oneshot::Receiver<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shared.end(None);
    }
}

#[async_trait]
impl Membership for Member {
    async fn next(&mut self) -> Result<Assigned, Error> {
        self.assigned.recv().await.ok_or_else(|| self.shared.reason())
    }

    async fn leave(mut self: Box<Self>) {
        self.shared.end(None);
        if timeout(Duration::from_millis(LEAVE_MS_MAX), &mut self.ended).await.is_err() {
            tracing::warn!(
                group = self.group,
                waited_ms = LEAVE_MS_MAX,
                "the group has not confirmed yet that a member left"
            );
        }
    }
}
