//! Writes thresholds into a policy file: two values change, everything else remains as it was written.

use super::{Error, PolicyThresholds};
use foretell_domain::score::login::LoginPolicy;
use foretell_events::document::{self, depth};
use foretell_events::policy::TEXT_BYTES_MAX;
use foretell_ports::file;
use std::path::Path;
use toml_edit::{DocumentMut, Item, TomlError, value};

/// Six decimal places for `challenge_at`, and nine for `deny_at`, because those scores are so close to 1.
const CHALLENGE_SCALE: f64 = 1e6;
const DENY_SCALE: f64 = 1e9;

/// A policy file; empty if there is none.
#[derive(Debug, Clone, Default)]
pub struct File {
    document: DocumentMut,
}

impl From<DocumentMut> for File {
    fn from(document: DocumentMut) -> Self {
        Self { document }
    }
}

impl File {
    /// Reads a policy file; a missing file counts as empty.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |detail: String| Error::Policy { file: path.display().to_string(), detail };
        match file::text(path, TEXT_BYTES_MAX) {
            Ok(text) => {
                depth::check(&text).map_err(|cause| failed(cause.to_string()))?;
                text.parse().map(|document| Self { document }).map_err(|cause: TomlError| failed(cause.to_string()))
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(cause) => Err(failed(cause.to_string())),
        }
    }

    /// The policy of the file, with values from `base` where it has none; the error is a sentence.
    pub fn policy(&self, base: &LoginPolicy) -> Result<LoginPolicy, String> {
        let document = document::from_toml(&self.document.to_string()).map_err(|cause| cause.to_string())?;
        LoginPolicy::read(&document, base).map_err(|invalid| invalid.to_string())
    }

    /// Sets the thresholds.
    pub fn set(&mut self, thresholds: PolicyThresholds) {
        for (key, threshold) in [("challenge_at", thresholds.challenge_at), ("deny_at", thresholds.deny_at)] {
            match self.document.get_mut(key).and_then(Item::as_value_mut) {
                Some(there) => {
                    let decor = there.decor().clone();
                    *there = threshold.into();
                    *there.decor_mut() = decor;
                }
                None => self.document[key] = value(threshold),
            }
        }
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let failed =
            |cause: std::io::Error| Error::Policy { file: path.display().to_string(), detail: cause.to_string() };
        std::fs::write(path, self.document.to_string()).map_err(failed)
    }
}

/// The next lower threshold with few digits: it catches at least as much.
pub(super) fn rounded_down(threshold: f64) -> f64 {
    (threshold * CHALLENGE_SCALE).floor() / CHALLENGE_SCALE
}

/// The next higher threshold with few digits: it denies no more users.
pub(super) fn rounded_up(threshold: f64) -> f64 {
    ((threshold * DENY_SCALE).ceil() / DENY_SCALE).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_the_thresholds_stays_as_it_was_written() {
        let text = "# Ours.\nmode = \"monotone\"   # as decided\nchallenge_at = 0.5 # old\n\n[signals.new_device]\nfactor = 30.0\n";
        let mut file = File { document: text.parse().unwrap() };
        file.set(PolicyThresholds { challenge_at: 0.0625, deny_at: 0.75 });
        let written = file.document.to_string();
        let policy = file.policy(&LoginPolicy::default()).unwrap();
        assert_eq!((policy.challenge_at, policy.deny_at), (0.0625, 0.75), "{written}");
        assert_eq!(policy.signals.new_device.factor, 30.0, "from the file");
        assert_eq!(policy.signals.new_country, LoginPolicy::default().signals.new_country, "from the settings");
        assert_eq!(
            written.replace("challenge_at = 0.0625", "challenge_at = 0.5").replace("deny_at = 0.75\n", ""),
            text
        );
    }

    #[test]
    fn a_file_that_is_no_policy_is_refused() {
        let policy = |text: &str| File { document: text.parse().unwrap() }.policy(&LoginPolicy::default());
        assert_eq!(policy(""), Ok(LoginPolicy::default()), "a new file");
        for (text, expected) in [
            ("challenge_at = \"low\"", "/challenge_at: "),
            ("challenge_at = 2.0", "from 0 to 1"),
            ("[signals.new_devise]\nfactor = 3.0", "new_devise"),
        ] {
            let error = policy(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn thresholds_are_rounded_to_the_side_that_keeps_their_promise() {
        assert_eq!((rounded_down(0.123_456_999), rounded_up(0.999_999_123_1)), (0.123_456, 0.999_999_124));
        assert_eq!((rounded_down(1.0), rounded_up(1.0_f64.next_up())), (1.0, 1.0));
    }
}
