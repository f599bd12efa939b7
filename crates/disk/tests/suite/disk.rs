//! The backends on disk: every guarantee, and what can happen to a directory.

use crate::Fixture;
use foretell_disk::log as disk;
use foretell_disk::log::Config;
use foretell_domain::address::{Family, Generation, RowKey, View};
use foretell_domain::pointer::Pointer;
use foretell_events::Topic;
use foretell_events::record::NewRecord;
use foretell_ports::clock;
use foretell_ports::log::{Log, LogAdmin, Next, record_at};
use foretell_ports::store::{Checkpoint, Flush, RowWrite, Store};
use foretell_ports::{Error, Kind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

fn open(directory: &Path, partitions: u32, config: Config) -> Result<disk::Log, Error> {
    disk::Log::open(&disk::lock(directory)?, |_| partitions, config, Arc::new(clock::System))
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

mod log_on_disk {
    use super::*;

    async fn make() -> Fixture<dyn Log> {
        let directory = directory();
        let log = open(directory.path(), 4, Config::default()).expect("opens");
        Fixture { port: Arc::new(log), keep: Box::new(directory) }
    }

    crate::log_promises!(make);
}

/// Segments and batches so small that every guarantee meets their boundaries.
mod log_on_disk_in_small_segments {
    use super::*;

    async fn make() -> Fixture<dyn Log> {
        let directory = directory();
        let config =
            Config { segment_bytes_max: 2_000, batch_records_max: 7, batch_bytes_max: 100, ..Config::default() };
        let log = open(directory.path(), 4, config).expect("opens");
        Fixture { port: Arc::new(log), keep: Box::new(directory) }
    }

    crate::log_promises!(make);
}

mod admin_on_disk {
    use super::*;
    use crate::admin_suite::Reopened;

    async fn make() -> Reopened {
        let directory = directory();
        let path = directory.path().to_owned();
        let reopened = move || -> Arc<dyn LogAdmin> {
            Arc::new(open(&path, 2, Config { segment_bytes_max: 2_000, ..Config::default() }).expect("opens"))
        };
        let log = reopened();
        let open = move |_| -> futures::future::BoxFuture<'static, Arc<dyn LogAdmin>> {
            Box::pin(std::future::ready(reopened()))
        };
        Reopened { log, open: Box::new(open), keep: Box::new(directory) }
    }

    crate::log_admin_promises!(make);
}

mod store_on_disk {
    use super::*;

    async fn make() -> Fixture<dyn Store> {
        let directory = directory();
        let store = foretell_disk::store::Store::open(&disk::lock(directory.path()).expect("free")).expect("opens");
        Fixture { port: Arc::new(store), keep: Box::new(directory) }
    }

    crate::store_promises!(make);
}

fn record(value: &str) -> NewRecord {
    NewRecord { topic: Topic::Logins, key: None, value: value.to_owned().into(), headers: Vec::new() }
}

async fn values(log: &disk::Log) -> Result<Vec<String>, Error> {
    let mut reader = log.read(Topic::Logins, 0, 0).await?;
    let mut values = Vec::new();
    loop {
        match reader.next().await? {
            Next::Records(records) => {
                values.extend(records.iter().map(|r| String::from_utf8_lossy(&r.value).into_owned()));
            }
            Next::End(_) | Next::Revoked(_) => return Ok(values),
        }
    }
}

/// A partition of three blocks, as files, which a crash or a bad disk then changes.
struct Damaged {
    directory: TempDir,
    segment: PathBuf,
    mark: PathBuf,
    bytes: Vec<u8>,
    /// The end of each block, and the mark at that time.
    ends: Vec<(usize, Vec<u8>)>,
}

impl Damaged {
    async fn new() -> Self {
        let directory = directory();
        let partition = directory.path().join("log/logins/0");
        let (segment, mark) = (partition.join("00000000000000000000.log"), partition.join("mark"));
        let mut ends = Vec::new();
        for value in ["one", "two", "three"] {
            let log = open(directory.path(), 1, Config::default()).expect("opens");
            log.append(vec![record(value)]).await.expect("appended");
            drop(log);
            let bytes = std::fs::metadata(&segment).expect("there").len();
            ends.push((bytes as usize, std::fs::read(&mark).expect("there")));
        }
        let bytes = std::fs::read(&segment).expect("there");
        Self { directory, segment, mark, bytes, ends }
    }

    /// Opens the log with these bytes, acknowledged up to the end of a block.
    fn open(&self, bytes: &[u8], acknowledged: usize) -> Result<disk::Log, Error> {
        std::fs::write(&self.segment, bytes).expect("written");
        std::fs::write(&self.mark, &self.ends[acknowledged].1).expect("written");
        open(self.directory.path(), 1, Config::default())
    }

    fn assert_refused(&self, bytes: &[u8], acknowledged: usize, at: usize) {
        let Err(error) = self.open(bytes, acknowledged) else { panic!("damage at {at} was not noticed") };
        assert_eq!(error.kind, Kind::Fatal);
        let (file, position) = (self.segment.display().to_string(), format!("byte {at}"));
        assert!(error.detail.contains(&file) && error.detail.contains(&position), "{error}");
        assert!(error.detail.contains("restore the directory from a backup"), "{error}");
        assert_eq!(std::fs::read(&self.segment).expect("there"), bytes, "it was left as it is");
    }
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut_off() {
    let files = Damaged::new().await;
    let (two, three) = (files.ends[1].0, files.ends[2].0);
    for cut in two..three {
        let log = files.open(&files.bytes[..cut], 1).expect("a torn tail is repaired");
        assert_eq!(values(&log).await.expect("readable"), ["one", "two"], "cut at {cut}");
        let position = log.append(vec![record("again")]).await.expect("appended")[0];
        assert_eq!(position.offset, 2, "offsets continue after what was kept");
        assert_eq!(values(&log).await.expect("readable"), ["one", "two", "again"]);
    }
    // All of the last block arrived, but not its acknowledgement.
    let log = files.open(&files.bytes, 1).expect("opens");
    assert_eq!(values(&log).await.expect("readable"), ["one", "two", "three"]);
}

#[tokio::test]
async fn a_tail_of_other_bytes_is_cut_off() {
    let files = Damaged::new().await;
    let (two, three) = (files.ends[1].0, files.ends[2].0);
    for at in two..three {
        let mut bytes = files.bytes.clone();
        bytes[at] ^= 0x10;
        let log = files.open(&bytes, 1).expect("a torn tail is repaired");
        assert_eq!(values(&log).await.expect("readable"), ["one", "two"], "flipped at {at}");
    }
    let zeros = [&files.bytes[..two], &[0; 5000]].concat();
    let log = files.open(&zeros, 1).expect("a torn tail is repaired");
    assert_eq!(values(&log).await.expect("readable"), ["one", "two"]);
}

#[tokio::test]
async fn acknowledged_bytes_that_are_missing_are_refused() {
    let files = Damaged::new().await;
    let (two, three) = (files.ends[1].0, files.ends[2].0);
    for cut in two..three {
        files.assert_refused(&files.bytes[..cut], 2, two);
    }
    std::fs::remove_file(&files.segment).expect("there");
    let error = open(files.directory.path(), 1, Config::default()).err().expect("a missing segment is noticed");
    assert!(error.kind == Kind::Fatal && error.detail.contains("00000000000000000000.log"), "{error}");
}

#[tokio::test]
async fn a_flipped_bit_in_what_was_acknowledged_is_refused() {
    let files = Damaged::new().await;
    let begins = [0, files.ends[0].0, files.ends[1].0, files.ends[2].0];
    for at in 0..files.bytes.len() {
        let mut bytes = files.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        let block = begins.iter().rev().find(|begin| **begin <= at).expect("the first begins at 0");
        files.assert_refused(&bytes, 2, *block);
    }
}

#[tokio::test]
async fn damage_before_a_valid_block_is_refused_even_beyond_the_mark() {
    let files = Damaged::new().await;
    // After a power loss the mark may be old: the valid block that follows proves that both were acknowledged.
    let (one, two) = (files.ends[0].0, files.ends[1].0);
    for at in one..two {
        let mut bytes = files.bytes.clone();
        bytes[at] ^= 0x40;
        files.assert_refused(&bytes, 0, one);
    }
}

#[tokio::test]
async fn a_lost_mark_makes_no_record_lost() {
    let files = Damaged::new().await;
    std::fs::write(&files.mark, b"").expect("written");
    let log = open(files.directory.path(), 1, Config::default()).expect("opens");
    assert_eq!(values(&log).await.expect("readable"), ["one", "two", "three"]);
    drop(log);
    std::fs::write(&files.mark, [0; 32]).expect("written");
    let log = open(files.directory.path(), 1, Config::default()).expect("opens");
    assert_eq!(values(&log).await.expect("readable"), ["one", "two", "three"]);
    drop(log);
    std::fs::write(&files.mark, [9; 32]).expect("written");
    let error = open(files.directory.path(), 1, Config::default()).err().expect("a damaged mark is noticed");
    assert!(error.kind == Kind::Fatal && error.detail.contains("mark"), "{error}");
}

#[tokio::test]
async fn segments_follow_each_other_and_are_read_from_anywhere() {
    let directory = directory();
    let config = Config { segment_bytes_max: 1_000, ..Config::default() };
    let expected: Vec<String> = (0..300).map(|n| format!("value {n}")).collect();
    for part in expected.chunks(100) {
        let log = open(directory.path(), 1, config).expect("opens");
        for value in part {
            log.append(vec![record(value)]).await.expect("appended");
        }
    }
    let log = open(directory.path(), 1, config).expect("opens");
    assert_eq!(values(&log).await.expect("readable"), expected);
    for (offset, value) in (0..).zip(&expected) {
        let found = record_at(&log, Topic::Logins, 0, offset).await.expect("readable").expect("there");
        assert_eq!(found.value, value.as_bytes());
    }
    let files = std::fs::read_dir(directory.path().join("log/logins/0")).expect("there").count();
    assert!(files > 10, "{files} files for 300 records in segments of a kilobyte");
}

#[tokio::test]
async fn an_empty_newest_segment_goes_on_where_its_forerunner_ended() {
    let directory = directory();
    let log = open(directory.path(), 1, Config::default()).expect("opens");
    log.append(vec![record("one"), record("two")]).await.expect("appended");
    drop(log);
    std::fs::write(directory.path().join("log/logins/0/00000000000000000002.log"), b"").expect("written");
    for value in ["three", "four"] {
        let log = open(directory.path(), 1, Config::default()).expect("opens");
        log.append(vec![record(value)]).await.expect("appended");
    }
    let log = open(directory.path(), 1, Config::default()).expect("opens");
    assert_eq!(values(&log).await.expect("readable"), ["one", "two", "three", "four"]);
}

#[tokio::test]
async fn damage_in_an_older_segment_is_refused_when_it_is_read() {
    let directory = directory();
    let config = Config { segment_bytes_max: 1_000, ..Config::default() };
    let log = open(directory.path(), 1, config).expect("opens");
    for n in 0..100 {
        log.append(vec![record(&format!("value {n}"))]).await.expect("appended");
    }
    drop(log);
    let oldest = directory.path().join("log/logins/0/00000000000000000000.log");
    let mut bytes = std::fs::read(&oldest).expect("there");
    bytes[50] ^= 1;
    std::fs::write(&oldest, &bytes).expect("written");
    let log = open(directory.path(), 1, config).expect("only the newest segment can be torn");
    let error = values(&log).await.expect_err("damage is noticed");
    assert_eq!(error.kind, Kind::Fatal);
    assert!(error.detail.contains(&oldest.display().to_string()) && error.detail.contains("byte 0"), "{error}");
    assert!(record_at(&log, Topic::Logins, 0, 99).await.expect("readable").is_some(), "the rest can be read");
    // An older segment that ends too early is damage too.
    bytes[50] ^= 1;
    let end = bytes.len() - 1;
    std::fs::write(&oldest, &bytes[..end]).expect("written");
    assert_eq!(values(&log).await.expect_err("damage is noticed").kind, Kind::Fatal);
}

#[tokio::test]
async fn a_directory_opened_again_keeps_everything() {
    let directory = directory();
    let log = open(directory.path(), 3, Config::default()).expect("opens");
    let keyed = |n: u32| NewRecord { key: Some(format!("t:{n}").into()), ..record(&n.to_string()) };
    let before = log.append((0..50).map(keyed).collect()).await.expect("appended");
    drop(log);
    let log = open(directory.path(), 7, Config::default()).expect("opens");
    assert_eq!(log.partitions(Topic::Logins), 3, "the stored count stays");
    for (n, position) in before.iter().enumerate() {
        let found = record_at(&log, Topic::Logins, position.partition, position.offset).await.expect("readable");
        assert_eq!(found.expect("kept").value, n.to_string());
    }
    let last = before.iter().filter(|p| p.partition == before[0].partition).map(|p| p.offset).max();
    let next = log.append(vec![keyed(0)]).await.expect("appended")[0];
    assert_eq!(Some(next.offset - 1), last);
}

#[test]
fn a_directory_belongs_to_one() {
    let directory = directory();
    let held = disk::lock(directory.path()).expect("free");
    let error = disk::lock(directory.path()).expect_err("taken");
    let expected = format!("{} is in use by another process (pid {})", directory.path().display(), std::process::id());
    assert_eq!((error.kind, error.detail), (Kind::Fatal, expected));
    let log = disk::Log::open(&held, |_| 1, Config::default(), Arc::new(clock::System)).expect("opens");
    let store = foretell_disk::store::Store::open(&held).expect("log and store share it");
    drop((held, log));
    assert!(disk::lock(directory.path()).is_err(), "the store still has it");
    drop(store);
    disk::lock(directory.path()).expect("free again");
}

#[tokio::test]
async fn appends_that_wait_together_share_a_sync() {
    let directory = directory();
    let log = open(directory.path(), 1, Config::default()).expect("opens");
    let appends = (0..500).map(|n| {
        let log = log.clone();
        async move { log.append(vec![record(&n.to_string())]).await.expect("appended")[0].offset }
    });
    let mut offsets = futures::future::join_all(appends).await;
    offsets.sort_unstable();
    assert_eq!(offsets, (0..500).collect::<Vec<_>>());
    assert!((1..250).contains(&log.syncs()), "{} syncs for 500 appends", log.syncs());
    let before = log.syncs();
    log.append((0..100).map(|n| record(&n.to_string())).collect()).await.expect("appended");
    assert_eq!(log.syncs(), before + 1, "one call to one partition is one sync");
}

/// Runs this binary again with only one test, in the role that the variable sets.
fn again(test: &str, directory: &Path) -> std::process::Command {
    let this = std::env::current_exe().expect("known");
    // Files may not grow beyond 32 blocks, and the process gets an error instead of a signal.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 32; exec \"$0\" --exact \"$1\" --nocapture"]).arg(this).arg(test);
    command.env(IN_CHILD, directory);
    command
}

/// Passes the directory to a process that a test has started.
const IN_CHILD: &str = "FORETELL_SUITE_DIRECTORY";

#[tokio::test]
async fn a_write_that_fails_is_undone_and_reported() {
    if let Some(directory) = std::env::var_os(IN_CHILD) {
        let log = open(Path::new(&directory), 1, Config::default()).expect("opens");
        log.append(vec![record("before")]).await.expect("appended");
        let error = log.append(vec![record(&"x".repeat(500_000))]).await.expect_err("no room for it");
        assert!(error.kind == Kind::Retry && error.detail.contains("cannot write to"), "{error}");
        assert_eq!(log.append(vec![record("after")]).await.expect("appended")[0].offset, 1);
        return;
    }
    let directory = directory();
    let child = again("disk::a_write_that_fails_is_undone_and_reported", directory.path()).output().expect("runs");
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    let log = open(directory.path(), 1, Config::default()).expect("opens");
    assert_eq!(values(&log).await.expect("readable"), ["before", "after"]);
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    if let Some(directory) = std::env::var_os(IN_CHILD) {
        let config = Config { segment_bytes_max: 4_000, ..Config::default() };
        let log = open(Path::new(&directory), 1, config).expect("opens");
        for n in 0_u64.. {
            log.append(vec![record(&n.to_string())]).await.expect("appended");
            println!("acknowledged {n}");
        }
    }
    let directory = directory();
    let mut command = again("disk::what_was_acknowledged_survives_a_kill", directory.path());
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("runs");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
    let acknowledged = |line: &String| line.strip_prefix("acknowledged ").and_then(|n| n.parse::<usize>().ok());
    let mut read = || lines.by_ref().map_while(Result::ok).find_map(|line| acknowledged(&line));
    while read().is_some_and(|n| n < 250) {}
    child.kill().expect("still running");
    child.wait().expect("ended");
    // What it had acknowledged before the signal reached it counts as well.
    let last = std::iter::from_fn(read).last().unwrap_or(250);
    let log = open(directory.path(), 1, Config::default()).expect("opens");
    let kept = values(&log).await.expect("readable");
    assert!(kept.len() > last, "{} kept, {last} was acknowledged", kept.len());
    assert!(kept.iter().enumerate().all(|(n, value)| *value == n.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_taken_while_the_log_is_written_holds_what_was_acknowledged_before() {
    let (directory, copy) = (directory(), directory());
    let config = Config { segment_bytes_max: 4_000, ..Config::default() };
    let log = open(directory.path(), 1, config).expect("opens");
    let (acknowledged, count) = tokio::sync::watch::channel(0_usize);
    let writing = tokio::spawn({
        let log = log.clone();
        async move {
            // Until the counters have stopped.
            for n in 0.. {
                log.append(vec![record(&n.to_string())]).await.expect("appended");
                if acknowledged.send(n + 1).is_err() {
                    break;
                }
            }
        }
    });
    let mut grown = count.clone();
    grown.wait_for(|n| *n > 300).await.expect("written");
    let before = *count.borrow();
    let to = copy.path().to_owned();
    let backup = tokio::task::spawn_blocking(move || {
        let mut reported = Vec::new();
        (
            log.backup(log.cut(), &to, &mut |bytes, of| {
                reported.push((bytes, of));
                Ok(())
            }),
            reported,
        )
    });
    let (backup, reported) = backup.await.expect("no panic");
    let backup = backup.expect("backed up");
    drop((count, grown));
    writing.await.expect("no panic");
    assert!(reported.len() > 3 && reported.is_sorted(), "one for each segment: {reported:?}");
    assert_eq!(reported.last(), Some(&(backup.bytes, backup.bytes)));
    let restored = open(copy.path(), 7, config).expect("opens");
    let kept = values(&restored).await.expect("readable");
    assert_eq!(kept.len() as u64, backup.records);
    assert!(kept.len() >= before, "{} kept, {before} were acknowledged", kept.len());
    assert!(kept.iter().enumerate().all(|(n, value)| *value == n.to_string()));
    assert_eq!(restored.partitions(Topic::Logins), 1, "as many as there were");
    restored.append(vec![record("on")]).await.expect("it goes on");
}

#[tokio::test]
async fn a_damaged_log_is_not_backed_up() {
    let (directory, copy) = (directory(), directory());
    let config = Config { segment_bytes_max: 200, ..Config::default() };
    let log = open(directory.path(), 1, config).expect("opens");
    for n in 0..20 {
        log.append(vec![record(&n.to_string())]).await.expect("appended");
    }
    let oldest = directory.path().join("log/logins/0/00000000000000000000.log");
    let mut bytes = std::fs::read(&oldest).expect("there");
    bytes[50] ^= 1;
    std::fs::write(&oldest, bytes).expect("written");
    let error = log.backup(log.cut(), copy.path(), &mut |_, _| Ok(())).expect_err("damaged");
    assert_eq!(error.kind, Kind::Fatal);
    assert!(error.detail.contains(&format!("{} is damaged at byte 0", oldest.display())), "{error}");
}

fn generation() -> Generation {
    Generation { family: Family::Logins, number: 1, epoch: 0 }
}

fn flush(next: i64) -> Flush {
    let key = RowKey::hashed(View::User, format!("t:{}", next % 100));
    let rows = vec![RowWrite { key, position: next - 1, cell: next.to_string().into() }];
    Flush { generation: generation(), partition: 0, rows, checkpoint: Checkpoint { next, last: None } }
}

#[tokio::test]
async fn a_store_opened_again_keeps_everything_and_still_refuses_lower_positions() {
    let directory = directory();
    let held = disk::lock(directory.path()).expect("free");
    let pointer = Pointer::first(1, "fold 1".to_owned());
    {
        let store = foretell_disk::store::Store::open(&held).expect("opens");
        for next in 1..=500 {
            store.apply(&flush(next)).await.expect("applied");
        }
        assert!(store.swap_pointer(Family::Logins, None, &pointer).await.expect("answered"));
    }
    let store = foretell_disk::store::Store::open(&held).expect("opens");
    let checkpoint = store.checkpoint(generation(), 0).await.expect("readable").expect("kept");
    assert_eq!(checkpoint.next, 500);
    store.apply(&flush(400)).await.expect("a late write is accepted");
    let key = RowKey::hashed(View::User, "t:0".to_owned());
    let rows = store.read(generation(), None, &[key]).await.expect("readable");
    assert_eq!(rows[0][0].cell, "500");
    assert_eq!(store.checkpoint(generation(), 0).await.expect("readable").expect("kept").next, 500);
    assert_eq!(store.pointer(Family::Logins).await.expect("readable"), Some(pointer));
}

#[tokio::test]
async fn a_damaged_store_reports_how_to_continue() {
    let directory = directory();
    let held = disk::lock(directory.path()).expect("free");
    drop(foretell_disk::store::Store::open(&held).expect("opens"));
    let path = directory.path().join("store");
    let version = path.join("version");
    std::fs::write(&version, b"no version at all").expect("written");
    let error = foretell_disk::store::Store::open(&held).err().expect("damage is noticed");
    assert_eq!(error.kind, Kind::Fatal);
    assert!(error.detail.contains("can be rebuilt from the log"), "{error}");
    assert!(error.detail.contains(&format!("delete {}", path.display())), "{error}");
}

/// `/dev/null` accepts every write and rejects every sync.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_the_log_is_broken_and_reports_it() {
    let directory = directory();
    let partition = directory.path().join("log/logins/0");
    std::fs::create_dir_all(&partition).expect("writable");
    std::os::unix::fs::symlink("/dev/null", partition.join(format!("{:020}.log", 0))).expect("writable");
    let log = open(directory.path(), 1, Config::default()).expect("opens");
    let early = tokio::spawn({
        let log = log.clone();
        async move { log.broken().await }
    });
    let first = log.append(vec![record("a")]).await.expect_err("not synced");
    assert_eq!(first.kind, Kind::Fatal, "{first}");
    assert_eq!(early.await.expect("the reason").to_string(), first.to_string());
    let elsewhere = NewRecord { topic: Topic::Appointments, ..record("b") };
    assert_eq!(log.append(vec![elsewhere]).await.expect_err("broken").to_string(), first.to_string());
    assert_eq!(log.broken().await.kind, Kind::Fatal);
    assert_eq!(log.extent(Topic::Logins, 0).await.expect("known").end, 0, "nothing of it is shown");
}

mod exchange {
    use super::*;
    use foretell_events::record::Record;
    use foretell_events::{Position, key};
    use foretell_ports::log::{Exchange, Remains};

    const MOVED: [Topic; 2] = [Topic::Appointments, Topic::Reminders];
    /// The renames at an opening, in order.
    const RENAMES: [(&str, &str); 4] = [
        ("appointments", "appointments.e0"),
        ("appointments.new", "appointments"),
        ("reminders", "reminders.e0"),
        ("reminders.new", "reminders"),
    ];

    fn into(partitions: u32) -> Exchange {
        Exchange { topics: MOVED.to_vec(), partitions, groups: Vec::new(), remains: Remains::Refuse }
    }

    fn keyed(topic: Topic, number: u32) -> NewRecord {
        let headers = vec![("ce_id".to_owned(), number.to_string().into())];
        let key = Some(format!("default:c{}", number % 7).into());
        NewRecord { topic, key, value: format!("{} {number}", topic.name()).into(), headers }
    }

    async fn all(log: &disk::Log, topic: Topic) -> Vec<Record> {
        let mut records = Vec::new();
        for partition in 0..log.partitions(topic) {
            let mut next = 0;
            while next < log.extent(topic, partition).await.expect("an extent").end {
                let page = log.page(topic, partition, next).await.expect("a page");
                next = page.next;
                records.extend(page.records);
            }
        }
        records
    }

    /// Two topics of two partitions each, in small segments, and their records.
    async fn filled(directory: &Path) -> (disk::Log, Vec<Record>) {
        let config = Config { segment_bytes_max: 2_000, ..Config::default() };
        let log = open(directory, 2, config).expect("opens");
        for number in 0..100 {
            let records = MOVED.map(|topic| keyed(topic, number)).to_vec();
            log.append(records).await.expect("appended");
        }
        let mut records = all(&log, Topic::Appointments).await;
        records.extend(all(&log, Topic::Reminders).await);
        records.sort_by_key(|record| record.timestamp_ms);
        (log, records)
    }

    /// Successors of five partitions are complete, and nothing is renamed yet.
    async fn finished(directory: &Path) -> Vec<Record> {
        let (log, records) = filled(directory).await;
        let mut successors = log.successors(&into(5)).await.expect("begun");
        for some in records.chunks(9) {
            successors.add(some.to_vec()).await.expect("added");
        }
        successors.finish().await.expect("whole");
        records
    }

    async fn assert_moved(directory: &Path, records: &[Record]) {
        let log = open(directory, 2, Config::default()).expect("opens");
        for topic in Topic::ALL {
            let expected = if MOVED.contains(&topic) { (1, 5) } else { (0, topic.partitions(2)) };
            assert_eq!((log.epoch(topic), log.partitions(topic)), expected, "{topic:?}");
        }
        for topic in MOVED {
            // By key, in order: everything but the position is unchanged.
            let content = |record: &Record| {
                let Record { position: Position { .. }, timestamp_ms, key, value, headers } = record.clone();
                (key, value, headers, timestamp_ms)
            };
            let of = |records: &[Record]| {
                let mut of: Vec<_> = records.iter().filter(|r| r.position.topic == topic).map(content).collect();
                of.sort_by(|left, right| left.0.cmp(&right.0));
                of
            };
            let now = all(&log, topic).await;
            assert_eq!(of(&now), of(records));
            for record in now {
                assert_eq!(key::partition(record.key.as_deref().expect("a key"), 5), record.position.partition);
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn topics_are_exchanged_together_wherever_an_opening_was_cut_off() {
        for steps in 0..=RENAMES.len() {
            let directory = directory();
            let records = finished(directory.path()).await;
            for (from, to) in &RENAMES[..steps] {
                let log = directory.path().join("log");
                std::fs::rename(log.join(from), log.join(to)).expect("renamed");
            }
            assert_moved(directory.path(), &records).await;
            assert!(!directory.path().join("log/successors").exists());
            assert!(directory.path().join("log/appointments.e0/0").exists(), "the old topic is left");
            assert_moved(directory.path(), &records).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_discarded_exchange_leaves_no_files() {
        let directory = directory();
        let (log, records) = filled(directory.path()).await;
        let exists = || MOVED.map(|topic| directory.path().join(format!("log/{}.new", topic.name())).exists());
        let mut discarded = log.successors(&into(4)).await.expect("begun");
        discarded.add(records[..50].to_vec()).await.expect("added");
        assert_eq!(exists(), [true; 2]);
        discarded.discard().await.expect("deleted");
        assert_eq!(exists(), [false; 2]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_backup_has_the_present_topics_and_their_epochs() {
        let (source, copy) = (directory(), directory());
        let records = finished(source.path()).await;
        let log = open(source.path(), 2, Config::default()).expect("opens");
        log.backup(log.cut(), copy.path(), &mut |_, _| Ok(())).expect("copied");
        assert_moved(copy.path(), &records).await;
        assert!(!copy.path().join("log/appointments.e0").exists());
    }
}

/// Decisions and dead letters are deleted after a time, facts never.
mod retention {
    use super::*;
    use foretell_events::record::Record;
    use foretell_ports::clock::Clock;
    use foretell_ports::log::Retention;
    use std::sync::atomic::{AtomicI64, Ordering};

    const HOUR_MS: i64 = 3_600_000;
    const DAY_MS: i64 = 24 * HOUR_MS;
    const DAY: Retention = Retention { decision_days: 1, dead_letter_days: 2 };
    const FOR_LONG: Retention = Retention { decision_days: 36_500, dead_letter_days: 36_500 };
    const TOPICS: [Topic; 3] = [Topic::Logins, Topic::Decisions, Topic::DeadLetters];

    struct Manual(AtomicI64);

    impl Clock for Manual {
        fn now_ms(&self) -> i64 {
            self.0.load(Ordering::SeqCst)
        }
    }

    /// A directory, and the time.
    struct Aging {
        directory: TempDir,
        clock: Arc<Manual>,
    }

    impl Aging {
        fn new() -> Self {
            Self { directory: directory(), clock: Arc::new(Manual(AtomicI64::new(1_772_359_200_000))) }
        }

        fn open(&self, retention: Retention) -> Result<disk::Log, Error> {
            let config = Config { segment_bytes_max: 200, retention, ..Config::default() };
            disk::Log::open(&disk::lock(self.directory.path())?, |_| 1, config, self.clock.clone())
        }

        fn pass(&self, ms: i64) {
            self.clock.0.fetch_add(ms, Ordering::SeqCst);
        }

        /// Four records of each topic every hour.
        async fn hours(&self, log: &disk::Log, count: usize) {
            for _ in 0..count {
                for n in 0..4 {
                    let records = TOPICS.map(|topic| NewRecord { topic, ..record(&n.to_string()) });
                    log.append(records.to_vec()).await.expect("appended");
                }
                self.pass(HOUR_MS);
            }
        }

        fn segments(&self, topic: Topic) -> Vec<PathBuf> {
            let partition = self.directory.path().join("log").join(topic.name()).join("0");
            let entries = std::fs::read_dir(partition).expect("there").map(|entry| entry.expect("readable").path());
            let mut segments: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
            segments.sort();
            segments
        }
    }

    /// All records of a partition, from its start.
    async fn held(log: &disk::Log, topic: Topic) -> Vec<Record> {
        let extent = log.extent(topic, 0).await.expect("an extent");
        let (mut records, mut next) = (Vec::new(), extent.start);
        while next < extent.end {
            let page = log.page(topic, 0, next).await.expect("a page");
            next = page.next;
            records.extend(page.records);
        }
        let offsets: Vec<_> = records.iter().map(|record| record.position.offset).collect();
        assert_eq!(offsets, (extent.start..extent.end).collect::<Vec<_>>(), "{topic:?}: no gap");
        records
    }

    #[tokio::test]
    async fn what_is_older_than_it_is_kept_goes_and_facts_stay() {
        let aging = Aging::new();
        let log = aging.open(DAY).expect("opens");
        aging.hours(&log, 1).await;
        let mut behind = log.read(Topic::Decisions, 0, 0).await.expect("all of it is there");
        aging.hours(&log, 99).await;
        let now_ms = aging.clock.now_ms();
        for (topic, kept_ms) in [(Topic::Decisions, DAY_MS), (Topic::DeadLetters, 2 * DAY_MS)] {
            let records = held(&log, topic).await;
            let age_ms = now_ms - records[0].timestamp_ms;
            assert!(age_ms > kept_ms && age_ms <= kept_ms + kept_ms / 30 + 2 * HOUR_MS, "{topic:?}: {age_ms} ms");
            assert_eq!(records.last().expect("some").position.offset, 399);
            let refused = log.read(topic, 0, 0).await.err().expect("the beginning is gone");
            assert!(refused.kind == Kind::Fatal && refused.detail.contains("offset 0 was requested"), "{refused}");
        }
        assert_eq!(held(&log, Topic::Logins).await.len(), 400, "facts are kept for ever");
        // An earlier reader continues at its position, and gets an error when it needs what was deleted.
        let refused = loop {
            match behind.next().await {
                Ok(Next::Records(records)) => assert!(records[0].position.offset < 100),
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        };
        assert!(refused.kind == Kind::Fatal && refused.detail.contains("was requested"), "{refused}");
        drop((behind, log));
        aging.pass(30 * DAY_MS);
        let log = aging.open(DAY).expect("opens");
        for topic in [Topic::Decisions, Topic::DeadLetters] {
            assert_eq!(aging.segments(topic).len(), 1, "{topic:?}: all but what is written is gone at once");
            assert!(!held(&log, topic).await.is_empty());
        }
        aging.hours(&log, 1).await;
        drop(log);
        let log = aging.open(DAY).expect("opens");
        assert_eq!(held(&log, Topic::Decisions).await.last().expect("some").position.offset, 403, "offsets go on");
    }

    #[tokio::test]
    async fn whatever_a_removal_has_come_to_is_the_end_without_a_gap() {
        for removed in 0..=12 {
            let aging = Aging::new();
            let log = aging.open(FOR_LONG).expect("opens");
            aging.hours(&log, 12).await;
            let all = held(&log, Topic::Decisions).await;
            drop(log);
            let segments = aging.segments(Topic::Decisions);
            assert!(segments.len() > 12, "{}", segments.len());
            segments[..removed].iter().for_each(|segment| std::fs::remove_file(segment).expect("there"));
            let log = aging.open(FOR_LONG).expect("opens");
            let left = held(&log, Topic::Decisions).await;
            assert_eq!(left, all[all.len() - left.len()..], "{removed} removed");
            assert!(removed == 0 || left.len() < all.len());
            drop(log);
            aging.pass(DAY_MS);
            let log = aging.open(DAY).expect("opens");
            assert_eq!(held(&log, Topic::Logins).await.len(), 48);
            let left = held(&log, Topic::Decisions).await;
            assert!(left.len() <= 4 && left == all[all.len() - left.len()..], "it continues where it was cut off");
        }
    }

    #[tokio::test]
    async fn the_segment_that_recovery_needs_is_never_removed() {
        let aging = Aging::new();
        let log = aging.open(FOR_LONG).expect("opens");
        aging.hours(&log, 3).await;
        let all = held(&log, Topic::Decisions).await;
        drop(log);
        // A crash between the creation of a segment and its first block.
        let empty = aging.directory.path().join("log/decisions/0/00000000000000000012.log");
        std::fs::write(&empty, b"").expect("written");
        aging.pass(90 * DAY_MS);
        for _ in 0..2 {
            let log = aging.open(DAY).expect("opens");
            let left = held(&log, Topic::Decisions).await;
            assert!(!left.is_empty() && left == all[all.len() - left.len()..]);
        }
        let log = aging.open(DAY).expect("opens");
        aging.hours(&log, 2).await;
        drop(log);
        let log = aging.open(DAY).expect("opens");
        let offsets: Vec<_> = held(&log, Topic::Decisions).await.iter().map(|record| record.position.offset).collect();
        assert_eq!(offsets.last(), Some(&19));
        assert!(offsets.first() >= Some(&12), "what was before has gone: {offsets:?}");
    }

    #[tokio::test]
    async fn facts_that_have_lost_their_beginning_are_not_opened() {
        for topic in [Topic::Logins, Topic::DeadLetters] {
            let aging = Aging::new();
            aging.hours(&aging.open(FOR_LONG).expect("opens"), 3).await;
            std::fs::remove_file(&aging.segments(topic)[0]).expect("there");
            let opened = aging.open(FOR_LONG);
            assert_eq!(opened.is_err(), topic.is_folded(), "{topic:?}");
            if let Err(error) = opened {
                assert!(error.kind == Kind::Fatal && error.detail.contains("restore the directory"), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn nothing_goes_while_it_is_copied_and_the_copy_begins_where_the_log_does() {
        let aging = Aging::new();
        let log = aging.open(DAY).expect("opens");
        aging.hours(&log, 10).await;
        let cut = log.cut();
        aging.pass(2 * DAY_MS);
        aging.hours(&log, 1).await;
        assert_eq!(log.extent(Topic::Decisions, 0).await.expect("known").start, 0);
        let copy = directory();
        let backup = log.backup(cut, copy.path(), &mut |_, _| Ok(())).expect("copied");
        assert_eq!(backup.records, 120);
        aging.hours(&log, 2).await;
        assert_eq!(log.extent(Topic::Decisions, 0).await.expect("known").start, 40, "the look was made up for");
        let copy = directory();
        let backup = log.backup(log.cut(), copy.path(), &mut |_, _| Ok(())).expect("copied");
        // 52 logins, 12 decisions, and the dead letters of two days and more.
        let letters = held(&log, Topic::DeadLetters).await;
        assert_eq!(backup.records, 52 + 12 + letters.len() as u64);
        let restored = open(copy.path(), 1, Config { retention: FOR_LONG, ..Config::default() }).expect("opens");
        assert_eq!(held(&restored, Topic::Decisions).await, held(&log, Topic::Decisions).await);
        assert_eq!(held(&restored, Topic::DeadLetters).await, letters);
    }
}
