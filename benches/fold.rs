//! The cost of folding a login: decoding its record, and folding its event into a growing history.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use foretell_domain::view::RecordPosition;
use foretell_domain::view::materialized::Materialized;
use foretell_domain::view::user::LoginFold;
use foretell_events::codec::{self, Parsed};
use foretell_events::record::Record;
use foretell_events::{Event, Position, Topic};
use foretell_lab::source::generate::{GeneratedLogins as Generated, GeneratorParams};
use std::hint::black_box;

/// Logins that are folded before starting again with empty rows.
const LOGINS: usize = 200_000;

fn record(offset: usize, event: Event) -> Record {
    let timestamp_ms = event.envelope.time_ms;
    let new = codec::encode_parsed(&Parsed::of(event));
    let position = Position { topic: Topic::Logins, partition: 0, offset: offset as i64 };
    Record { position, timestamp_ms, key: new.key, value: new.value, headers: new.headers }
}

/// Folds the logins one after another, and starts again after the last one.
struct Folding<'a> {
    events: &'a [Event],
    at: usize,
    rows: Materialized<LoginFold>,
}

impl Folding<'_> {
    fn next(&mut self) -> bool {
        if self.at == self.events.len() {
            (self.at, self.rows) = (0, Materialized::new(LoginFold::default()));
        }
        let changed = self.rows.take(&self.events[self.at], RecordPosition { partition: 0, offset: self.at as i64 });
        self.at += 1;
        changed
    }
}

fn fold(criterion: &mut Criterion) {
    let events: Vec<_> = Generated::new(GeneratorParams::default()).take(LOGINS).collect();
    let records: Vec<_> = events.iter().take(4_096).cloned().enumerate().map(|(at, event)| record(at, event)).collect();
    let mut group = criterion.benchmark_group("login");
    group.throughput(Throughput::Elements(1));
    group.bench_function("decode", |bencher| {
        let mut turn = records.iter().cycle();
        bencher.iter(|| black_box(codec::decode(turn.next().expect("a cycle has no end"))));
    });
    group.bench_function("fold", |bencher| {
        let mut folding = Folding { events: &events, at: 0, rows: Materialized::new(LoginFold::default()) };
        bencher.iter(|| black_box(folding.next()));
    });
    group.finish();
}

criterion_group!(benches, fold);
criterion_main!(benches);
