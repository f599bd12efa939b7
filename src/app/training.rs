//! The job that trains no-show models from the log of an instance.
//!
//! It reads the appointments topic, sorts the events by time, and trains. A history is in memory as a whole, so a
//! process trains one model at a time.

use async_trait::async_trait;
use foretell_domain::address::Family;
use foretell_domain::score::no_show;
use foretell_domain::view::Limits;
use foretell_engine::jobs::{Job, JobContext, JobProgress};
use foretell_engine::pipeline::family;
use foretell_events::codec::rfc3339;
use foretell_events::{Event, Topic, judge, key};
use foretell_lab::source::EVENTS_MAX;
use foretell_lab::train::{self, TrainedModel, TrainingRefusal, TrainingSet};
use foretell_ports::Error;
use foretell_ports::clock::Clock;
use foretell_ports::log::Log;
use foretell_ports::log::walk::Walk;
use foretell_ports::store::Store;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Arc;

const OPERATION: &str = "train a model";

/// What to train on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingQuery {
    /// The tenant whose visits are read.
    pub tenant: String,
    /// Use only events up to this time, in milliseconds since the epoch; none: all events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
}

/// Trains on the log of an instance, with the settings of its scores.
#[derive(Clone)]
pub struct TrainingJob {
    /// The log to train on.
    pub log: Arc<dyn Log>,
    /// Contains the time from which on the gate checks records.
    pub store: Arc<dyn Store>,
    /// Source of the current time.
    pub clock: Arc<dyn Clock>,
    /// The settings of the scores.
    pub config: no_show::Config,
    /// What the fold depends on.
    pub limits: Limits,
}

#[async_trait]
impl Job for TrainingJob {
    const NAME: &'static str = "train-no-show";
    const OPERATION: &'static str = OPERATION;
    const ONE_AT_A_TIME: bool = true;
    type Query = TrainingQuery;
    type Item = ();
    type Report = TrainedModel;

    async fn run(&self, query: TrainingQuery, context: &JobContext<()>) -> Result<TrainedModel, Error> {
        let events = self.read(&query.tenant, context).await?;
        let (job, context) = (self.clone(), context.clone());
        let training = tokio::task::spawn_blocking(move || job.train(events, &query, &context));
        let trained = training.await.map_err(|panic| Error::fatal(OPERATION, panic))?;
        trained.map_err(|refused| Error::reject(OPERATION, refused))
    }
}

impl TrainingJob {
    /// The tenant's events that were in the log when the job started.
    async fn read(&self, tenant: &str, context: &JobContext<()>) -> Result<Vec<Event>, Error> {
        let gated_from_ms = family::gated_from_ms(self.store.as_ref(), Family::Appointments).await?;
        let (log, topic) = (self.log.as_ref(), Topic::Appointments);
        let partitions = log.partitions(topic);
        let mut extents = Vec::new();
        for partition in 0..partitions {
            extents.push(log.extent(topic, partition).await?);
        }
        let offsets = extents.iter().map(|extent| (extent.end - extent.start).unsigned_abs()).sum();
        context.begin("offsets", offsets).await?;
        let prefix = key::of(tenant, "");
        let mut events = Vec::new();
        for (partition, extent) in (0..).zip(extents) {
            let mut walk = Walk::begin(log, topic, partition, extent, OPERATION).await?;
            let mut read = extent.start;
            while let Some(records) = walk.next().await? {
                let of_tenant = records
                    .iter()
                    .filter(|record| record.key.as_deref().is_some_and(|key| key.starts_with(prefix.as_bytes())));
                // A record that cannot be folded is a dead letter, and is not used.
                events.extend(of_tenant.filter_map(|record| judge::judge(record, partitions, gated_from_ms).ok()));
                if events.len() > EVENTS_MAX {
                    return Err(Error::reject(OPERATION, format!("more than {EVENTS_MAX} events")));
                }
                let next = walk.next_offset();
                context.advance((next - read).unsigned_abs()).await?;
                read = next;
            }
        }
        Ok(events)
    }

    /// Trains on this thread; ends with the candidate at which the job is cancelled.
    fn train(
        &self,
        mut events: Vec<Event>,
        query: &TrainingQuery,
        context: &JobContext<()>,
    ) -> Result<TrainedModel, TrainingRefusal> {
        let flow =
            |result: Result<(), Error>| if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        // Records of one key are in the order of their appends; the stable sort keeps it for equal times.
        events.sort_by_key(|event| event.envelope.time_ms);
        let history = train::replay(events.iter(), &self.config, &self.limits, &mut |_| flow(context.check()));
        drop(events);
        let (mut tenants, names) = history?.into_rows(query.until_ms);
        let rows = tenants.remove(&query.tenant).unwrap_or_default();
        let set = TrainingSet { rows: &rows, names: &names, until_ms: query.until_ms, config: &self.config };
        let mut model = train::train(set, &mut |candidates, of| {
            let progress = JobProgress { what: "candidates".into(), done: candidates as u64, total: of as u64 };
            flow(context.report_now(progress))
        })?;
        model.training.trained_at = Some(rfc3339(self.clock.now_ms()));
        Ok(TrainedModel { model })
    }
}
