//! The settings of pipelines, which are the section `pipeline`.

use serde::{Deserialize, Serialize};

/// What a pipeline may use at once, and how long it may wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Records of a batch; a full batch is flushed at once.
    pub batch_records_max: usize,
    /// How long an open batch waits for further records, from its first one, before it is flushed where none is at hand.
    pub batch_linger_ms: u64,
    /// Age at which a batch is flushed even while records keep coming: what an event waits at most to be visible,
    /// besides the flush itself.
    pub batch_age_ms_max: u64,
    /// Records of one owner in a batch; bounds the list that its row carries.
    #[serde(skip)]
    pub owner_records_max: usize,
    /// Decoded rows kept; beyond, those not used of late are read again when they are needed.
    #[serde(skip)]
    pub cached_rows_max: usize,
    /// How long a revoked partition may flush before the next owner goes on without it.
    pub drain_ms_max: u64,
    /// Records rejected one after the other before a partition stops; 0 sets no bound.
    pub rejected_run_max: u32,
    /// Share of rejected records, in percent of the family's latest ones in this process, beyond which a partition
    /// stops; 100 sets no bound.
    pub rejected_percent_max: u32,
    /// Records that are the latest ones: at least half of them are there before a share counts.
    pub rejected_window_records: u32,
    /// The same for records that are rejected with one and the same code, which has one cause; 0 sets no bound.
    pub rejected_code_window_records: u32,
    /// Longest pause between two attempts while a port is away.
    #[serde(skip)]
    pub retry_ms_max: u64,
    /// Between two looks at which generations are to be folded.
    #[serde(skip)]
    pub pointer_look_ms: u64,
    /// How long a generation is folded on when the pointer names it no longer, and half as long again until its rows
    /// are dropped: a reader's memory of the pointer is younger.
    pub generation_grace_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            batch_records_max: 2_000,
            batch_linger_ms: 10,
            batch_age_ms_max: 100,
            owner_records_max: 128,
            cached_rows_max: 10_000,
            drain_ms_max: 8_000,
            rejected_run_max: 1_000,
            rejected_percent_max: 50,
            rejected_window_records: 10_000,
            rejected_code_window_records: 1_000,
            retry_ms_max: 5_000,
            pointer_look_ms: 1_000,
            generation_grace_ms: 10_000,
        }
    }
}
