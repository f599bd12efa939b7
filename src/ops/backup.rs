//! `backup`: a copy of the embedded log, taken by whoever has it open.

use super::Error;
use super::access::Access;
use super::inspect::{Print, urlencoded};
use axum::http::Method;
use foretell_service::http::admin::BackupTold;
use indicatif::ProgressBar;
use std::io::Write;
use std::path::Path;

/// Backs the embedded log up into a directory, and says to `out` what is there then.
pub async fn back_up(
    access: &Access,
    directory: &Path,
    bar: &ProgressBar,
    print: Print,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let named = |cause| Error::File(directory.display().to_string(), cause);
    let directory = std::path::absolute(directory).map_err(named)?;
    let Some(to) = directory.to_str() else {
        return Err(Error::Answer(format!("{} is not UTF-8", directory.display())));
    };
    let mut lines = access.lines(Method::POST, &format!("/admin/backup?to={}", urlencoded(to))).await?;
    while let Some(told) = lines.next::<BackupTold>().await? {
        match told {
            BackupTold::Copied { bytes, of } => {
                bar.set_length(of);
                bar.set_position(bytes);
            }
            BackupTold::Done(backup) => {
                match print {
                    Print::Json => writeln!(out, "{}", serde_json::to_string(&backup).unwrap_or_default())?,
                    Print::Table => writeln!(out, "{} records, {} bytes in {to}", backup.records, backup.bytes)?,
                }
                return Ok(());
            }
            BackupTold::Failed { detail } => return Err(Error::Answer(detail)),
        }
    }
    Err(Error::Answer("the answer ended before the backup was whole; it is not to be used".into()))
}
