//! The fold golden: rows change only with `FOLD_VERSION`.
//!
//! Stored rows are rebuilt when their fingerprint changes. If a fold gives different rows under the same version, old
//! and new rows mix, and nothing reports it. So `tests/data/fold-rows.txt` has a digest of the rows of each view for a
//! fixed history, and the version that they belong to. It has the current version only: no code can check the earlier
//! ones, and Git has them.
//!
//! The history uses every event type and reaches every limit; two tests here verify this. A new type needs new events:
//! append them to the last file, and the test still compares the rows of the earlier events.

use bytes::Bytes;
use foretell_domain::address::{Family, RowKey, View};
use foretell_domain::view::cell::{Carried, CellBuffer};
use foretell_domain::view::{Aggregate, FOLD_VERSION, Fold, FoldOutcome, FoldVisitor, Limits, RecordPosition, Skip};
use foretell_events::record::Record;
use foretell_events::{Event, Position, Topic, agent, catalog, codec, key, zone};
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

const PARTITIONS: u32 = 2;
const GOLDEN: &str = "tests/data/fold-rows.txt";
/// Files of CloudEvents, one per line. The first two are the imports of an earlier version's data directory.
const HISTORY: [&str; 3] =
    ["tests/data/fold7/logins.jsonl", "tests/data/fold7/visits.jsonl", "tests/data/fold-history.jsonl"];

fn text(path: &str) -> String {
    std::fs::read_to_string([crate::REPOSITORY, path].join("/")).unwrap()
}

/// Small enough that the history reaches each of them.
fn limits() -> Limits {
    Limits {
        time_zone_default: "Europe/Dublin".into(),
        time_zones_dir: None,
        user_devices_max: 4,
        user_values_max: 4,
        user_logins_max: 6,
        user_failures_max: 4,
        fan_out_users_max: 3,
        client_appointments_max: 8,
        appointment_requests_max: 2,
        appointment_receipts_max: 2,
        appointment_reminders_max: 3,
        outcome_samples_max: 1,
    }
}

/// The events of the history as texts.
fn history() -> Vec<String> {
    HISTORY.map(text).iter().flat_map(|text| text.lines()).map(str::to_owned).collect()
}

/// The events, read as the records of a log are.
fn events(history: &[String]) -> Vec<(RecordPosition, Event)> {
    let mut ends: BTreeMap<(Topic, u32), i64> = BTreeMap::new();
    let events = history.iter().map(|line| {
        let record = Record {
            position: Position { topic: Topic::Logins, partition: 0, offset: 0 },
            timestamp_ms: crate::build::at("2032-01-01T00:00:00Z"),
            key: None,
            value: Bytes::copy_from_slice(line.as_bytes()),
            headers: Vec::new(),
        };
        let event = codec::decode(&record).unwrap_or_else(|faults| panic!("{faults}: {line}"));
        let topic = event.fact.topic();
        let partition = key::partition(event.key().as_bytes(), topic.partitions(PARTITIONS));
        let end = ends.entry((topic, partition)).or_default();
        *end += 1;
        (RecordPosition { partition, offset: *end - 1 }, event)
    });
    events.collect()
}

/// The rows, and what else the folds decided.
#[derive(Default)]
struct Folded {
    /// By address and source partition.
    cells: BTreeMap<(RowKey, u32), Bytes>,
    skipped: BTreeSet<Skip>,
    displaced: usize,
    too_late: usize,
}

/// Folds the events of a family. An owner's cell carries all of its outcomes: their encoded form must not change
/// either, because a later version reads the outcomes that are pending.
fn fold<F: Fold>(fold: &F, history: &[(RecordPosition, Event)], folded: &mut Folded) {
    type OwnerRow<F> = (RecordPosition, <F as Fold>::Owner, Carried<<F as Fold>::Decision>);
    let mut owners: BTreeMap<RowKey, OwnerRow<F>> = BTreeMap::new();
    let mut aggregates: BTreeMap<(RowKey, u32), (i64, Aggregate)> = BTreeMap::new();
    for (place, event) in history.iter().filter(|(_, event)| event.fact.topic() == F::FAMILY.topic()) {
        let row = owners.entry(RowKey::hashed(F::OWNER, event.key()));
        let (last, owner, carried) = row.or_insert_with(|| (*place, F::Owner::default(), Carried::default()));
        *last = *place;
        let outcome = fold.fold(owner, event, *place);
        folded.skipped.extend(outcome.skipped());
        if let FoldOutcome::Applied(decision) = &outcome {
            folded.displaced += usize::from(F::has_displaced(decision));
            folded.too_late += usize::from(F::is_too_late(decision));
            for contribution in fold.contributions(event, decision, *place) {
                let (key, delta) = contribution.into_parts();
                let empty = Aggregate::empty(&key).unwrap();
                let (last, row) = aggregates.entry((key, place.partition)).or_insert((0, empty));
                *last = place.offset;
                row.apply(&delta, fold.limits()).unwrap();
            }
        }
        carried.pending.push((place.offset, outcome));
    }
    let mut scratch = CellBuffer::default();
    for (key, (last, owner, carried)) in owners {
        folded.cells.insert((key, last.partition), scratch.owner(last.offset, &owner, &carried));
    }
    for ((key, source), (last, row)) in aggregates {
        folded.cells.insert((key, source), scratch.aggregate(last, &row));
    }
}

struct Folding<'a>(&'a [(RecordPosition, Event)], &'a mut Folded);

impl FoldVisitor for Folding<'_> {
    type Output = ();

    fn visit<F: Fold>(self, family: F) {
        fold(&family, self.0, self.1);
    }
}

/// Folds the events of every family.
fn fold_all(history: &[(RecordPosition, Event)], limits: &Limits) -> Folded {
    let mut folded = Folded::default();
    for family in Family::ALL {
        family.with_fold(limits.clone(), Folding(history, &mut folded));
    }
    folded
}

/// Number and digest of the rows of a view, in the order of their addresses.
fn digest(cells: &BTreeMap<(RowKey, u32), Bytes>, view: View) -> String {
    let (mut rows, mut hash) = (0, Xxh3::new());
    for ((key, source), cell) in cells.iter().filter(|((key, _), _)| key.view == view) {
        rows += 1;
        hash.update(&key.bucket.to_le_bytes());
        hash.update(&source.to_le_bytes());
        for bytes in [key.key.as_bytes(), cell.as_ref()] {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
    }
    format!("{rows} {:032x}", hash.digest128())
}

/// The lines of the golden file for a history, without the version.
fn lines(history: &[String]) -> Vec<String> {
    let cells = fold_all(&events(history), &limits()).cells;
    let head = [
        format!("rules zones{}-agents{}", zone::version(), agent::rules()),
        format!("history {} {:032x}", history.len(), xxh3_128(history.join("\n").as_bytes())),
    ];
    let views = View::ALL.iter().map(|view| format!("{} {}", view.name(), digest(&cells, *view)));
    head.into_iter().chain(views).collect()
}

/// How many events of the history a golden file covers.
fn covered(golden: &str) -> Option<usize> {
    golden.lines().find_map(|line| line.split_once(" history ")?.1.split(' ').next()?.parse().ok())
}

/// Errs with what differs between the golden file and this build, and what to do about it. `lines` are those for the
/// events that the file covers, `new` those for all of them.
fn compare(golden: &str, version: u32, lines: &[String], new: &[String]) -> Result<(), String> {
    let is_extended = new != lines;
    let new = new.iter().map(|line| format!("\n{version} {line}")).collect::<String>();
    let new = format!("\nThe lines of this build for {GOLDEN}:{new}");
    let golden: Vec<&str> = golden.lines().filter(|line| !line.starts_with('#')).collect();
    if !golden.iter().all(|line| line.starts_with(&format!("{version} "))) || golden.len() != lines.len() {
        return Err(format!(
            "{GOLDEN} needs one line each for rules, history and every view, all of FOLD_VERSION {version}. If you \
             raised the version because rows change, replace the lines.{new}"
        ));
    }
    let is_new = |line: &&String| !golden.contains(&format!("{version} {line}").as_str());
    let changed = lines.iter().filter(is_new).map(|line| line.split(' ').next().unwrap_or_default());
    let (rules, changed): (Vec<_>, Vec<_>) = changed.partition(|name| *name == "rules");
    let advice = match rules.is_empty() {
        true => "If this is intended, raise FOLD_VERSION and replace the lines; if not, the change is wrong.",
        false => {
            "The rules for time zones or user agents changed too. If they are the only reason, replace the lines: the \
             fingerprint contains the rules. Otherwise raise FOLD_VERSION as well."
        }
    };
    match changed.first() {
        Some(&"history") => Err("The history changed. Restore it: it can only be extended, at its end.".to_owned()),
        Some(_) => Err(format!("The rows of these views changed: {}. {advice}{new}", changed.join(", "))),
        None if is_extended => Err(format!(
            "The history has new events, and the rows of the others are unchanged. Replace the lines.{new}"
        )),
        None => Ok(()),
    }
}

#[test]
fn rows_change_only_with_the_version_of_the_fold() {
    let (golden, history) = (text(GOLDEN), history());
    let covered = covered(&golden).unwrap_or_default().min(history.len());
    let (lines, new) = (lines(&history[..covered]), lines(&history));
    compare(&golden, FOLD_VERSION, &lines, &new).unwrap_or_else(|difference| panic!("{difference}"));
}

#[test]
fn a_difference_names_the_view_and_what_to_do() {
    let names: Vec<_> = ["rules", "history"].into_iter().chain(View::ALL.map(View::name)).collect();
    let build = |changed: &[&str]| {
        let value = |name: &&str| if changed.contains(name) { "1 b" } else { "1 a" };
        names.iter().map(|name| format!("{name} {}", value(name))).collect::<Vec<_>>()
    };
    let golden = build(&[]).iter().fold("# A comment.".to_owned(), |text, line| text + "\n8 " + line);
    let result = |version, changed: &[&str]| compare(&golden, version, &build(changed), &build(changed));
    assert_eq!(result(8, &[]), Ok(()));
    assert_eq!(result(8, &["rules"]), Ok(()), "other rules, the same rows");
    let extended = compare(&golden, 8, &build(&[]), &build(&["history", "user"]));
    let shortened = compare(golden.rsplit_once('\n').unwrap().0, 8, &build(&[]), &build(&[]));
    let mut cases: Vec<_> = [
        (result(8, &["lead", "agenda", "rules"]), "The rows of these views changed: lead, agenda. The rules "),
        (result(8, &["history", "lead"]), "The history changed."),
        (extended, "The history has new events"),
        (result(9, &[]), "tests/data/fold-rows.txt needs one line each"),
        (shortened, "tests/data/fold-rows.txt needs one line each"),
    ]
    .map(|(result, start)| (result, start.to_owned()))
    .into();
    for view in View::ALL.map(View::name) {
        cases.push((
            result(8, &[view]),
            format!("The rows of these views changed: {view}. If this is intended, raise "),
        ));
    }
    for (result, start) in cases {
        let difference = result.unwrap_err();
        assert!(difference.starts_with(&start), "{difference}");
    }
}

#[test]
fn the_history_has_every_type_view_and_reason_to_skip() {
    let history = events(&history());
    let types: BTreeSet<_> = history.iter().map(|(_, event)| event.fact.type_name()).collect();
    assert_eq!(types, catalog::types().map(|known| known.name).collect());
    let tenants: BTreeSet<_> = history.iter().map(|(_, event)| event.envelope.tenant.as_str()).collect();
    assert!(tenants.len() > 2, "{tenants:?}");
    let folded = fold_all(&history, &limits());
    assert_eq!(folded.skipped, BTreeSet::from(Skip::ALL));
    assert!(folded.displaced > 0 && folded.too_late > 0, "{} and {}", folded.displaced, folded.too_late);
    for view in View::ALL {
        let sources = folded.cells.keys().filter(|(key, _)| key.view == view).map(|(_, source)| *source);
        let sources: BTreeSet<u32> = sources.collect();
        let all = view.family().topic().partitions(PARTITIONS);
        assert_eq!(sources, (0..all).collect(), "partitions with rows of {}", view.name());
    }
}

#[test]
fn the_history_reaches_every_limit() {
    let (history, small) = (events(&history()), limits());
    let cells = fold_all(&history, &small).cells;
    // A pattern without `..`: a new limit does not compile until it is here.
    let Limits {
        time_zone_default,
        time_zones_dir: _, // Its rules are process-wide; the fingerprint has them.
        user_devices_max,
        user_values_max,
        user_logins_max,
        user_failures_max,
        fan_out_users_max,
        client_appointments_max,
        appointment_requests_max,
        appointment_receipts_max,
        appointment_reminders_max,
        outcome_samples_max,
    } = Limits::default();
    let raised = [
        ("time_zone_default", Limits { time_zone_default, ..small.clone() }),
        ("user_devices_max", Limits { user_devices_max, ..small.clone() }),
        ("user_values_max", Limits { user_values_max, ..small.clone() }),
        ("user_logins_max", Limits { user_logins_max, ..small.clone() }),
        ("user_failures_max", Limits { user_failures_max, ..small.clone() }),
        ("fan_out_users_max", Limits { fan_out_users_max, ..small.clone() }),
        ("client_appointments_max", Limits { client_appointments_max, ..small.clone() }),
        ("appointment_requests_max", Limits { appointment_requests_max, ..small.clone() }),
        ("appointment_receipts_max", Limits { appointment_receipts_max, ..small.clone() }),
        ("appointment_reminders_max", Limits { appointment_reminders_max, ..small.clone() }),
        ("outcome_samples_max", Limits { outcome_samples_max, ..small.clone() }),
    ];
    for (name, limits) in raised {
        assert!(fold_all(&history, &limits).cells != cells, "the history does not reach {name}");
    }
}
