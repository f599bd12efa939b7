//! Rows have limits: repeated events of one account or from one address do not make them grow.

use foretell_domain::view::RecordPosition;
use foretell_domain::view::materialized::Materialized;
use foretell_domain::view::user::LoginFold;
use foretell_events::key;
use foretell_lab::source::generate::{self, GeneratorParams, Hot};

/// A list without a limit would be much larger than this.
const ROW_BYTES_MAX: usize = 8 * 1024;
const PARTITIONS: u32 = 4;
const EVENTS: usize = 5_000;

#[test]
fn rows_of_what_is_hot_stay_within_their_bounds() {
    for hot in [Hot::User, Hot::Address] {
        // As many as a million in an hour.
        let shape = GeneratorParams { hot: Some((hot, 0.9)), gap_ms: 4, ..GeneratorParams::default() };
        let mut rows = Materialized::new(LoginFold::default());
        for (offset, event) in (0..).zip(generate::GeneratedLogins::new(shape).take(EVENTS)) {
            let partition = key::partition(event.key().as_bytes(), PARTITIONS);
            assert!(rows.take(&event, RecordPosition { partition, offset }), "each counts");
        }
        let (key, _, largest) = rows.states().max_by_key(|(.., state)| state.len()).unwrap();
        assert!(largest.len() <= ROW_BYTES_MAX, "{hot:?}: {key:?} has {} bytes", largest.len());
    }
}
