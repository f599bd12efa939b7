//! A copy of a data directory that a service can start from: the log, and the journals of its imports.
//!
//! Rows are not copied: they are the fold of the log, and are folded again at the start. Journals must match the moment
//! at which the log is cut. With a journal that is behind the log, an import appends events again: the fold recognises
//! one batch as duplicates, as after a crash, but not more. With a journal that is ahead of the log, events would be
//! lost.

use async_trait::async_trait;
use foretell_disk::log as disk;
use foretell_disk::log::Cut;
use foretell_disk::log::OnProgress;
use foretell_engine::jobs::{Job, JobContext, JobProgress, JobRefusal};
use foretell_ports::log::Backup;
use foretell_ports::{Error, Kind};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const OPERATION: &str = "back up the data directory";
const JOURNALS: &str = "imports";
/// Attempts to find a moment at which no journal changes; each takes far less time than a batch.
const LOOKS_MAX: u32 = 1_000;

/// Copies into a directory next to `to`, which is renamed to `to` when it is complete, and can then be served.
pub(super) fn back_up(
    log: &disk::Log,
    directory: &Path,
    to: &Path,
    on_progress: &mut OnProgress<'_>,
) -> Result<Backup, Error> {
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    if to.exists() {
        let detail = format!("{} exists: use a new directory for each backup", to.display());
        return Err(Error::reject(OPERATION, detail));
    }
    fs::create_dir(partial).map_err(|cause| match cause.kind() {
        io::ErrorKind::AlreadyExists => {
            let detail = format!("{} is left over from an interrupted backup: remove it first", partial.display());
            Error::reject(OPERATION, detail)
        }
        _ => failed(partial, &cause),
    })?;
    let (journals, cut) = at_one_moment(log, &directory.join(JOURNALS))?;
    let backup = match log.backup(cut, partial, on_progress) {
        Err(error) if error.kind == Kind::Retry => {
            // Cancelled: the next one needs the name.
            fs::remove_dir_all(partial).map_err(|cause| failed(partial, &cause))?;
            return Err(error);
        }
        copied => copied?,
    };
    write(&partial.join(JOURNALS), &journals).map_err(|cause| failed(partial, &cause))?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let named = fs::rename(partial, to).and_then(|()| fs::File::open(parent)?.sync_all());
    named.map_err(|cause| failed(to, &cause))?;
    Ok(backup)
}

/// Copies the embedded log and what belongs to it into a directory. Blocks.
pub type BackUp = dyn Fn(&Path, &mut OnProgress<'_>) -> Result<Backup, Error> + Send + Sync;

/// Where a backup goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupQuery {
    /// An absolute path of a directory that does not exist yet.
    pub to: PathBuf,
}

/// The job that backs an instance up.
#[derive(Clone)]
pub struct BackupJob {
    /// Copies; none if the log is not embedded.
    pub back_up: Option<Arc<BackUp>>,
}

#[async_trait]
impl Job for BackupJob {
    const NAME: &'static str = "backup";
    const OPERATION: &'static str = OPERATION;
    const WHEN_CUT_OFF: &'static str = "the copy is not complete; do not use it";
    type Query = BackupQuery;
    type Item = ();
    type Report = Backup;

    fn check(&self, _: &BackupQuery) -> Result<(), JobRefusal> {
        let detail = "the log is not embedded: back up its topics with Kafka's tools";
        self.back_up.as_ref().map(drop).ok_or_else(|| JobRefusal::NotFound(detail.into()))
    }

    async fn run(&self, query: BackupQuery, context: &JobContext<()>) -> Result<Backup, Error> {
        let back_up = self.back_up.clone().ok_or_else(|| Error::reject(OPERATION, "the log is not embedded"))?;
        let context = context.clone();
        let copying = tokio::task::spawn_blocking(move || {
            back_up(&query.to, &mut |done, total| context.report_now(JobProgress { what: "bytes".into(), done, total }))
        });
        copying.await.map_err(|panic| Error::fatal(OPERATION, panic))?
    }
}

type Journals = Vec<(OsString, Vec<u8>)>;

/// The journals and a cut of the log between two of their changes: at most the batch in progress is only in the log.
fn at_one_moment<'a>(log: &'a disk::Log, directory: &Path) -> Result<(Journals, Cut<'a>), Error> {
    let look = || read(directory).map_err(|cause| failed(directory, &cause));
    for _ in 0..LOOKS_MAX {
        let (journals, cut) = (look()?, log.cut());
        if look()? == journals {
            return Ok((journals, cut));
        }
    }
    Err(Error::retry(OPERATION, "import journals change too fast: try again, or wait until the imports are done"))
}

fn failed(path: &Path, cause: &io::Error) -> Error {
    Error::fatal(OPERATION, format!("{}: {cause}", path.display()))
}

fn read(directory: &Path) -> io::Result<Journals> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut journals = Vec::new();
    for journal in fs::read_dir(directory)? {
        let journal = journal?;
        if journal.path().extension().is_some_and(|extension| extension == "json") {
            journals.push((journal.file_name(), fs::read(journal.path())?));
        }
    }
    Ok(journals)
}

fn write(directory: &Path, journals: &[(OsString, Vec<u8>)]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for (name, journal) in journals {
        let mut file = fs::File::create_new(directory.join(name))?;
        file.write_all(journal)?;
        file.sync_all()?;
    }
    fs::File::open(directory)?.sync_all()
}
