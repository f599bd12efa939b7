//! Folds a log again: the same pipelines, into a scratch store, as far as they are told and no further.

use super::{Ear, OPERATION, Scratch, Told};
use crate::pipeline::{Exit, Pipeline, Shared};
use async_trait::async_trait;
use foretell_domain::address::RowKey;
use foretell_domain::view::Fold;
use foretell_events::Topic;
use foretell_ports::Error;
use foretell_ports::log::{Acknowledge, Log, Next, Reader};
use foretell_ports::store::{Checkpoint, Store};
use futures::stream::{self, StreamExt, TryStreamExt};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Rows folded again.
pub(super) struct Again<F: Fold> {
    shared: Arc<Shared<F>>,
    /// Held by every task as well: one that is aborted works on to its next await, and its place must be there.
    scratch: Arc<Scratch>,
    ear: Ear,
}

impl<F: Fold> Again<F> {
    pub(super) fn new(shared: Arc<Shared<F>>, scratch: Arc<Scratch>, ear: Ear) -> Self {
        Self { shared, scratch, ear }
    }

    /// The rows.
    pub(super) fn store(&self) -> &dyn Store {
        self.shared.store.as_ref()
    }

    /// Folds every partition up to its end, as many at once as there are processors.
    pub(super) async fn fold_all(&self, ends: &[i64]) -> Result<(), Error> {
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let folding = (0_u32..).zip(ends.to_vec()).map(|(partition, end)| {
            let (shared, scratch, ear) = (Arc::clone(&self.shared), Arc::clone(&self.scratch), self.ear.clone());
            async move {
                let log = Arc::clone(&shared.log);
                let reader = log.read(shared.topic(), partition, 0).await?;
                let folding = tokio::spawn(async move {
                    let _place = scratch;
                    fold(shared, partition, Until::new(reader, 0, end, Some(ear))).await
                });
                AbortOnDropHandle::new(folding).await.map_err(|panic| Error::fatal(OPERATION, panic))?
            }
        });
        stream::iter(folding).buffer_unordered(at_once).try_collect().await
    }

    /// Folds a partition on, so that everything below `end` is in its rows; answers whether the log goes so far.
    pub(super) async fn fold_to(&self, partition: u32, end: i64) -> Result<bool, Error> {
        let stored = self.store().checkpoint(self.shared.generation, partition).await?;
        let next = stored.map_or(0, |checkpoint| checkpoint.next);
        let (log, topic) = (Arc::clone(&self.shared.log), self.shared.topic());
        if next >= end || log.extent(topic, partition).await?.end < end {
            return Ok(next >= end);
        }
        // A look at a time: to open a reader for a step of a few records may cost more than they do.
        let reader = Box::new(Looking { log, topic, partition, next });
        fold(Arc::clone(&self.shared), partition, Until::new(reader, next, end, None)).await?;
        Ok(true)
    }

    /// A partial as it was folded again.
    pub(super) async fn partial(&self, partition: u32, key: &RowKey) -> Result<Option<bytes::Bytes>, Error> {
        let keys = std::slice::from_ref(key);
        let read = self.store().read(self.shared.generation, Some(partition), keys).await?;
        Ok(read.into_iter().flatten().next().map(|row| row.cell))
    }
}

/// Folds what a reader brings. It is not counted in the metrics of the views: they count what is folded for good.
async fn fold<F: Fold>(shared: Arc<Shared<F>>, partition: u32, reader: Until) -> Result<(), Error> {
    let stored = shared.store.checkpoint(shared.generation, partition).await?;
    let checkpoint = stored.unwrap_or(Checkpoint { next: 0, last: None });
    let end = reader.end;
    let pipeline = Pipeline::new(Arc::clone(&shared), partition, checkpoint, Box::new(reader));
    let mut folding = pin!(pipeline.run(CancellationToken::new()));
    let exit = poll_fn(|cx| metrics::with_local_recorder(&metrics::NoopRecorder, || folding.as_mut().poll(cx))).await?;
    let reached = shared.store.checkpoint(shared.generation, partition).await?.map_or(0, |checkpoint| checkpoint.next);
    match exit {
        Exit::Revoked if reached >= end => Ok(()),
        // Either the flush of the last batch took longer than a drain may, or a store that nobody else writes has
        // rows that nobody wrote.
        _ => Err(Error::fatal(OPERATION, format!("folding partition {partition} again ended at {reached} of {end}"))),
    }
}

/// Brings what lies below an end, and says that it is reached; then the partition is given back, as to another owner.
struct Until {
    reader: Box<dyn Reader>,
    next: i64,
    end: i64,
    has_ended: bool,
    /// Where it is told how far it is.
    ear: Option<Ear>,
}

impl Until {
    fn new(reader: Box<dyn Reader>, next: i64, end: i64, ear: Option<Ear>) -> Self {
        Self { reader, next, end, has_ended: false, ear }
    }

    async fn reach(&mut self, next: i64) -> Result<(), Error> {
        let offsets = (next - self.next).unsigned_abs();
        self.next = next;
        match &self.ear {
            Some(ear) => ear.tell(Told::Folded { offsets }).await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Reader for Until {
    async fn next(&mut self) -> Result<Next, Error> {
        while self.next < self.end {
            match self.reader.next().await? {
                Next::Records(mut records) => {
                    let next = records.last().map_or(self.next, |record| record.position.offset + 1);
                    records.retain(|record| record.position.offset < self.end);
                    // Spans of the first fold are enough.
                    records.iter_mut().for_each(|record| record.headers.retain(|(name, _)| name != "traceparent"));
                    self.reach(next.min(self.end)).await?;
                    if !records.is_empty() {
                        return Ok(Next::Records(records));
                    }
                }
                Next::End(next) => self.reach(next.clamp(self.next, self.end)).await?,
                revoked @ Next::Revoked(_) => return Ok(revoked),
            }
        }
        if !self.has_ended {
            // What lies between the last record and the end are holes.
            self.has_ended = true;
            return Ok(Next::End(self.end));
        }
        Ok(Next::Revoked(Acknowledge::new().0))
    }

    async fn commit(&mut self, _: i64) -> Result<(), Error> {
        Ok(())
    }
}

/// Reads by looking: no reader stays open between two steps.
struct Looking {
    log: Arc<dyn Log>,
    topic: Topic,
    partition: u32,
    next: i64,
}

#[async_trait]
impl Reader for Looking {
    async fn next(&mut self) -> Result<Next, Error> {
        let page = self.log.page(self.topic, self.partition, self.next).await?;
        self.next = page.next;
        Ok(if page.records.is_empty() { Next::End(page.next) } else { Next::Records(page.records) })
    }

    async fn commit(&mut self, _: i64) -> Result<(), Error> {
        Ok(())
    }
}
