//! `backup`: a copy of the embedded log, made by the process that has it open.

use super::Error;
use super::access::Access;
use super::inspect::Print;
use super::jobs::{self, Console};
use crate::app::backup::{BackupJob, BackupQuery};
use std::path::Path;

/// Backs up the embedded log into a directory, and prints the size of the copy.
pub async fn back_up(access: &Access, directory: &Path, console: &mut Console<'_>) -> Result<(), Error> {
    let named = |cause| Error::File(directory.display().to_string(), cause);
    let to = std::path::absolute(directory).map_err(named)?;
    if to.to_str().is_none() {
        return Err(Error::Answer(format!("{} is not UTF-8", to.display())));
    }
    let query = BackupQuery { to };
    let backup = jobs::run::<BackupJob>(access, &query, console, &mut |(), _| Ok(())).await?;
    match console.print {
        Print::Json => console.json(&backup)?,
        Print::Table => {
            let (records, bytes, to) = (backup.records, backup.bytes, query.to.display());
            writeln!(console.out, "{records} records, {bytes} bytes in {to}")?;
        }
    }
    Ok(())
}
