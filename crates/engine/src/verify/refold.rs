//! Folds a log again with the same pipelines, into a scratch store, up to given offsets and no further.

use super::{OPERATION, ScratchStore, VerifyFinding};
use crate::jobs::JobContext;
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
pub(super) struct Refold<F: Fold> {
    shared: Arc<Shared<F>>,
    /// Every task holds a clone: an aborted task continues to its next await, and still needs the directory.
    scratch: Arc<ScratchStore>,
    context: JobContext<VerifyFinding>,
}

impl<F: Fold> Refold<F> {
    pub(super) fn new(shared: Arc<Shared<F>>, scratch: Arc<ScratchStore>, context: JobContext<VerifyFinding>) -> Self {
        Self { shared, scratch, context }
    }

    /// The rows.
    pub(super) fn store(&self) -> &dyn Store {
        self.shared.store.as_ref()
    }

    /// Folds every partition up to its end, with as many tasks at once as there are processors.
    pub(super) async fn fold_all(&self, ends: &[i64]) -> Result<(), Error> {
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let folding = (0_u32..).zip(ends.to_vec()).map(|(partition, end)| {
            let (shared, scratch) = (Arc::clone(&self.shared), Arc::clone(&self.scratch));
            let context = self.context.clone();
            async move {
                let log = Arc::clone(&shared.log);
                let reader = log.read(shared.topic(), partition, 0).await?;
                let folding = tokio::spawn(async move {
                    let _place = scratch;
                    fold(shared, partition, Until::new(reader, 0, end, Some(context))).await
                });
                AbortOnDropHandle::new(folding).await.map_err(|panic| Error::fatal(OPERATION, panic))?
            }
        });
        stream::iter(folding).buffer_unordered(at_once).try_collect().await
    }

    /// Continues to fold a partition until its rows contain all records below `end`; returns whether the log reaches
    /// it.
    pub(super) async fn fold_to(&self, partition: u32, end: i64) -> Result<bool, Error> {
        let stored = self.store().checkpoint(self.shared.generation, partition).await?;
        let next = stored.map_or(0, |checkpoint| checkpoint.next);
        let (log, topic) = (Arc::clone(&self.shared.log), self.shared.topic());
        if next >= end || log.extent(topic, partition).await?.end < end {
            return Ok(next >= end);
        }
        // Reads single pages: opening a reader for a few records may cost more than the records.
        let reader = Box::new(CountingReader { log, topic, partition, next });
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

/// Folds the records of a reader. The metrics of the views do not count them: the rows are temporary.
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
        // Either the flush of the last batch took longer than a drain may, or a store without
        // other writers has rows that this process did not write.
        _ => Err(Error::fatal(OPERATION, format!("folding partition {partition} again ended at {reached} of {end}"))),
    }
}

/// Reads up to an end offset and reports it; then it revokes the partition, as for another owner.
struct Until {
    reader: Box<dyn Reader>,
    next: i64,
    end: i64,
    has_ended: bool,
    /// Offsets that are not in the progress yet.
    unreported: u64,
    /// Receives the progress; none for the few records of a row that moved.
    context: Option<JobContext<VerifyFinding>>,
}

impl Until {
    fn new(reader: Box<dyn Reader>, next: i64, end: i64, context: Option<JobContext<VerifyFinding>>) -> Self {
        Self { reader, next, end, has_ended: false, unreported: 0, context }
    }

    /// Reports progress up to `next` without waiting: a pipeline drops the future of a read when a flush is due, and
    /// with it the records that were read.
    fn reach(&mut self, next: i64) -> Result<(), Error> {
        self.unreported += (next - self.next).unsigned_abs();
        self.next = next;
        match &self.context {
            Some(context) if context.advance_now(self.unreported)? => self.unreported = 0,
            _ => {}
        }
        Ok(())
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
                    self.reach(next.min(self.end))?;
                    if !records.is_empty() {
                        return Ok(Next::Records(records));
                    }
                }
                Next::End(next) => self.reach(next.clamp(self.next, self.end))?,
                revoked @ Next::Revoked(_) => return Ok(revoked),
            }
        }
        if !self.has_ended {
            // Only holes are left between the last record and the end.
            self.has_ended = true;
            return Ok(Next::End(self.end));
        }
        Ok(Next::Revoked(Acknowledge::new().0))
    }

    async fn commit(&mut self, _: i64) -> Result<(), Error> {
        Ok(())
    }
}

/// Reads page by page: no reader stays open between two steps.
struct CountingReader {
    log: Arc<dyn Log>,
    topic: Topic,
    partition: u32,
    next: i64,
}

#[async_trait]
impl Reader for CountingReader {
    async fn next(&mut self) -> Result<Next, Error> {
        let page = self.log.page(self.topic, self.partition, self.next).await?;
        self.next = page.next;
        Ok(if page.records.is_empty() { Next::End(page.next) } else { Next::Records(page.records) })
    }

    async fn commit(&mut self, _: i64) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::JobEvent;
    use foretell_events::Position;
    use foretell_events::record::Record;
    use futures::FutureExt;
    use tokio::sync::mpsc;

    /// A reader that always has one more record.
    struct Endless(i64);

    #[async_trait]
    impl Reader for Endless {
        async fn next(&mut self) -> Result<Next, Error> {
            let position = Position { topic: Topic::Logins, partition: 0, offset: self.0 };
            self.0 += 1;
            let (key, value, headers) = (None, bytes::Bytes::new(), Vec::new());
            Ok(Next::Records(vec![Record { position, timestamp_ms: 0, key, value, headers }]))
        }

        async fn commit(&mut self, _: i64) -> Result<(), Error> {
            Ok(())
        }
    }

    /// Between a record that was read and the pipeline there is no await at which the record could be lost.
    #[tokio::test]
    async fn a_slow_client_does_not_hold_records_back() {
        let (sender, mut receiver) = mpsc::channel(1);
        let context = JobContext::of_test(sender);
        let mut until = Until::new(Box::new(Endless(0)), 0, 3, Some(context));
        for offset in 0..3 {
            let read = until.next().now_or_never().expect("it is ready at once").unwrap();
            assert!(matches!(&read, Next::Records(records) if records[0].position.offset == offset));
        }
        assert!(matches!(receiver.recv().await, Some(JobEvent::Progress(progress)) if progress.done == 1));
        drop(receiver);
        until.end = 4;
        assert!(until.next().await.is_err(), "the client has disconnected");
    }
}
