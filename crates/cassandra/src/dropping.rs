//! Dropping a generation: the only deletion in this store.

use super::read::Partition;
use super::{Cassandra, fault, int, write};
use foretell_domain::address::Generation;
use foretell_ports::Error;
use futures::stream::{self, StreamExt, TryStreamExt};

impl Cassandra {
    /// Deletes every Cassandra partition of a generation, rows before checkpoints, with a timestamp above all those of
    /// its writers.
    pub(super) async fn drop_all(&self, generation: Generation) -> Result<(), Error> {
        for view in generation.family.views() {
            let buckets = self.list_buckets(generation, view).await?;
            let drops = buckets.into_iter().map(|bucket| self.drop_bucket(Partition { generation, view, bucket }));
            stream::iter(drops).buffer_unordered(self.limits.concurrency_max).try_collect::<()>().await?;
        }
        for source in self.list_checkpoints(generation).await? {
            self.drop_checkpoint(generation, source).await?;
        }
        Ok(())
    }

    async fn drop_bucket(&self, partition: Partition) -> Result<(), Error> {
        let Partition { generation, view, bucket } = partition;
        let values = (write::ABOVE_ALL_ROWS, view.name(), int(generation.number)?, bucket);
        write::repeat(|| async {
            let dropped = self.session.execute_unpaged(&self.statements.drop_bucket, &values).await;
            dropped.map(drop).map_err(|error| fault::execution("drop rows", &error))
        })
        .await
    }

    async fn drop_checkpoint(&self, generation: Generation, source: i32) -> Result<(), Error> {
        let values = (write::ABOVE_ALL_ROWS, generation.family.name(), int(generation.number)?, source);
        write::repeat(|| async {
            let dropped = self.session.execute_unpaged(&self.statements.drop_checkpoint, &values).await;
            dropped.map(drop).map_err(|error| fault::execution("drop a checkpoint", &error))
        })
        .await
    }

    /// The source partitions for which a generation has checkpoints.
    async fn list_checkpoints(&self, generation: Generation) -> Result<Vec<i32>, Error> {
        let operation = "list checkpoints";
        let number = int(generation.number)?;
        let pager = self.session.execute_iter(self.statements.checkpoints.clone(), ()).await;
        let mut rows = pager
            .map_err(|error| fault::first_page(operation, &error))?
            .rows_stream::<(String, i32, i32)>()
            .map_err(|error| fault::shape(operation, &error))?;
        let mut sources = Vec::new();
        while let Some((family, of, source)) =
            rows.try_next().await.map_err(|error| fault::next_row(operation, &error))?
        {
            if of == number && family == generation.family.name() {
                sources.push(source);
            }
        }
        Ok(sources)
    }
}
