//! What the process tells about itself: metrics, traces, log lines.

/// Reads of an aggregate row that may be answered from memory; labels [`VIEW`], [`RESULT`] (`hit`, `miss`).
pub const CACHE_READS: &str = "foretell_cache_reads_total";
/// Seconds that a read of rows took; label [`FAMILY`].
pub const STORE_READ_SECONDS: &str = "foretell_store_read_seconds";
/// Age in seconds of the oldest record not yet folded; labels [`FAMILY`], [`PARTITION`].
pub const LAG_SECONDS: &str = "foretell_lag_seconds";
/// Records not yet folded, holes included; labels [`FAMILY`], [`PARTITION`].
pub const LAG_RECORDS: &str = "foretell_lag_records";

/// Label: a view.
pub const VIEW: &str = "view";
/// Label: what came of it.
pub const RESULT: &str = "result";
/// Label: a topic family.
pub const FAMILY: &str = "family";
/// Label: a partition.
pub const PARTITION: &str = "partition";
