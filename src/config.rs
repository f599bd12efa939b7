//! Settings: one annotated file with the defaults, and three layers on top of it.
//!
//! ```text
//!   defaults.toml ◄─ --config FILE ◄─ FORETELL__SECTION__KEY ◄─ flags        the rightmost wins, key by key
//! ```
//!
//! Each component defines its section as a struct that documents its bounds; this module only combines them. An unknown
//! key is an error that suggests the most similar key, because a setting that is silently ignored is the worst kind of
//! default.

pub mod clusters;
mod urls;
mod zones;

use foretell_domain::address::Family;
use foretell_domain::{score, view};
use foretell_engine::{pipeline, progress, rows};
use foretell_events::zone;
use foretell_events::{document, suggest};
use foretell_ports::component::{Component, InvalidSetting};
use foretell_ports::{file, log};
use foretell_service::{decisions, http, instance, remind};
use foretell_telemetry::LOG_SYNCS;
use metrics::counter;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The annotated defaults.
pub const DEFAULTS: &str = include_str!("config/defaults.toml");
/// Prefix of environment variables.
const PREFIX: &str = "FORETELL__";
/// Largest file of settings, in bytes.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Keys of earlier versions that no deployment sets, by section: their values are constants now.
const REMOVED: [(&str, &str); 17] = [
    ("pipeline", "owner_records_max"),
    ("pipeline", "cached_rows_max"),
    ("pipeline", "retry_ms_max"),
    ("pipeline", "pointer_look_ms"),
    ("progress", "wait_ms"),
    ("progress", "idle_ms"),
    ("reads", "cache_entries_max"),
    ("reminders", "tick_ms"),
    ("reminders", "catch_up_ms_max"),
    ("reminders", "clients_max"),
    ("reminders", "tick_clients_max"),
    ("reminders", "records_max"),
    ("enrich", "netset_prefixes_max"),
    ("enrich", "reload_ms"),
    ("kafka", "linger_ms"),
    ("cassandra", "batch_bytes_max"),
    ("cassandra", "concurrency_max"),
];

/// All settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// URL of the log.
    pub log: String,
    /// URL of the store.
    pub store: String,
    /// Names and shapes of topics.
    pub topics: Topics,
    /// What a fold depends on.
    pub fold: view::Limits,
    /// How partitions are folded.
    pub pipeline: pipeline::Config,
    /// How rows are read.
    pub reads: rows::Config,
    /// How often checkpoints are read.
    #[serde(skip)]
    pub progress: progress::Config,
    /// Local files with data about addresses.
    pub enrich: foretell_enrich::Config,
    /// How scores are computed.
    pub score: Score,
    /// When and how reminders are planned.
    pub reminders: remind::Config,
    /// How decision records are kept.
    pub decisions: decisions::Config,
    /// How requests are served.
    pub http: http::Config,
    /// Where operators are served.
    pub ops: http::ops::Config,
    /// Logs, traces and metrics of the process.
    pub telemetry: crate::telemetry::Config,
    /// How a Kafka cluster is reached.
    pub kafka: clusters::Kafka,
    /// How a Cassandra cluster is reached.
    pub cassandra: clusters::Cassandra,
    /// Notices for the author of the settings: sentences for the log.
    #[serde(skip)]
    pub notices: Vec<String>,
}

/// Names and shapes of topics.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topics {
    /// Prefix of every name.
    pub prefix: String,
    /// Partitions of topics created on Kafka, at least 1.
    pub partitions: u32,
    /// Partitions of the topics of a new embedded log, at least 1.
    pub embedded_partitions: u32,
    /// Copies of each record on Kafka.
    pub replication_factor: u16,
    /// Copies that must exist before a record is acknowledged.
    pub min_insync_replicas: u16,
    /// How long decisions are kept and can be looked up, 1 to 36,500 days.
    pub decision_retention_days: u32,
    /// How long dead letters are kept, 1 to 36,500 days.
    pub dead_letter_retention_days: u32,
    /// The epoch of each topic on Kafka that an empty store begins with.
    pub epochs: Epochs,
}

impl Component for Topics {
    fn section(&self) -> &'static str {
        "topics"
    }

    fn validate(&self) -> Result<(), InvalidSetting> {
        let bounded = [
            ("partitions", self.partitions, 1_000),
            ("embedded_partitions", self.embedded_partitions, 1_000),
            ("decision_retention_days", self.decision_retention_days, 36_500),
            ("dead_letter_retention_days", self.dead_letter_retention_days, 36_500),
        ];
        let outside = bounded.into_iter().find(|(_, value, max)| !(1..=*max).contains(value));
        outside.map_or(Ok(()), |(key, value, max)| {
            Err(InvalidSetting::new(key, format!("{value} is not from 1 to {max}")))
        })
    }

    fn register_metrics(&self) {
        counter!(LOG_SYNCS).increment(0);
    }
}

impl Topics {
    /// How long records are kept if no row is folded from them.
    pub const fn retention(&self) -> log::Retention {
        log::Retention {
            decision_days: self.decision_retention_days,
            dead_letter_days: self.dead_letter_retention_days,
        }
    }
}

/// The epochs of the topics on Kafka, from 0 to 100, for a store without pointers.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epochs {
    /// Of logins.
    pub logins: u8,
    /// Of appointments and reminders.
    pub appointments: u8,
}

impl Epochs {
    /// The epoch of a family's topic; 0 if there is no setting for its lead family.
    pub fn of(self, family: Family) -> u8 {
        let set = [(Family::Logins, self.logins), (Family::Appointments, self.appointments)];
        set.into_iter().find(|(lead, _)| *lead == family.lead()).map_or(0, |(_, epoch)| epoch)
    }
}

/// How scores are computed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Of logins.
    pub login: score::login::LoginPolicy,
    /// Of appointments.
    pub no_show: score::no_show::Config,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not valid TOML: {cause}", path.display())]
    Parse {
        /// Path of the file.
        path: PathBuf,
        /// Where and why.
        cause: document::Error,
    },
    /// A key or a value is not valid.
    #[error("setting {place}: {message}")]
    Invalid {
        /// Dotted path of the key.
        place: String,
        /// What is wrong, and the likely intention.
        message: String,
    },
}

/// The layers on top of the defaults.
#[derive(Debug, Default)]
pub struct Layers<'a> {
    /// A file.
    pub file: Option<&'a Path>,
    /// All environment variables; those of other programs are ignored.
    pub environment: Vec<(String, String)>,
    /// Dotted keys and their values.
    pub flags: Vec<(&'static str, String)>,
}

/// The defaults as JSON, without their comments.
pub fn defaults() -> serde_json::Value {
    toml::from_str(DEFAULTS).expect("invariant: the defaults are TOML, a test reads them")
}

/// Reads the settings through all layers.
pub fn load(layers: Layers<'_>) -> Result<Config, Error> {
    let mut settings: Table = DEFAULTS.parse().expect("invariant: the defaults are TOML, a test reads them");
    if let Some(path) = layers.file {
        let text = file::text(path, FILE_BYTES_MAX).map_err(|cause| Error::Read { path: path.to_owned(), cause })?;
        let over: Table = document::from_toml(&text).map_err(|cause| Error::Parse { path: path.to_owned(), cause })?;
        merge(&mut settings, over);
    }
    for (name, text) in layers.environment {
        if let Some(keys) = name.strip_prefix(PREFIX) {
            let keys: Vec<_> = keys.split("__").map(str::to_lowercase).collect();
            set(&mut settings, &keys, &text);
        }
    }
    for (key, text) in layers.flags {
        let keys: Vec<_> = key.split('.').map(str::to_owned).collect();
        set(&mut settings, &keys, &text);
    }
    let notices = drop_removed(&mut settings);
    let mut config: Config = serde_path_to_error::deserialize(Value::Table(settings)).map_err(|error| {
        let place = error.path().to_string();
        Error::Invalid { place, message: suggest::explained(&error.into_inner().message().replace('\n', " ")) }
    })?;
    config.check()?;
    config.notices = notices;
    Ok(config)
}

/// Removes obsolete keys from the settings; returns one sentence for each that was set.
fn drop_removed(settings: &mut Table) -> Vec<String> {
    let mut notices = Vec::new();
    for (section, key) in REMOVED {
        let Some(Value::Table(table)) = settings.get_mut(section) else { continue };
        if table.remove(key).is_some() {
            notices.push(format!(
                "the setting {section}.{key} was removed: it is ignored, and will be an error in the next minor version"
            ));
        }
        if table.is_empty() {
            settings.remove(section);
        }
    }
    notices
}

/// Tables are merged key by key; anything else is replaced, lists as a whole.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Sets a key from text, parsed with the type of the current value. Keys without a default are text.
fn set(table: &mut Table, keys: &[String], text: &str) {
    let Some((key, rest)) = keys.split_first() else { return };
    if rest.is_empty() {
        let value = typed(table.get(key), text);
        table.insert(key.clone(), value);
        return;
    }
    let inner = table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(inner) = inner {
        set(inner, rest, text);
    }
}

fn typed(stands: Option<&Value>, text: &str) -> Value {
    let as_text = || Value::String(text.to_owned());
    let parsed =
        || document::from_toml(&format!("value = {text}")).ok().and_then(|mut table: Table| table.remove("value"));
    match stands {
        None | Some(Value::String(_)) => as_text(),
        Some(Value::Float(_)) => text.parse().map_or_else(|_| as_text(), Value::Float),
        Some(Value::Array(_)) if text.trim().is_empty() => Value::Array(Vec::new()),
        Some(Value::Array(_)) if !text.trim_start().starts_with('[') => {
            Value::Array(text.split(',').map(|item| Value::String(item.trim().to_owned())).collect())
        }
        _ => parsed().unwrap_or_else(as_text),
    }
}

impl Config {
    /// Checks what serde cannot: values that would make a part of the service meaningless.
    fn check(&self) -> Result<(), Error> {
        let invalid = |place: &str, message: String| Err(Error::Invalid { place: place.to_owned(), message });
        if let Err(message) = clusters::check_log(&self.log) {
            return invalid("log", message);
        }
        if let Err(message) = clusters::check_store(&self.store) {
            return invalid("store", message);
        }
        if let Err(error) = self.score.login.validate() {
            return invalid("score.login", error.to_string());
        }
        if let Err(error) = self.score.no_show.validate() {
            return invalid("score.no_show", error.to_string());
        }
        if self.zone_rules()?.get(&self.fold.time_zone_default).is_none() {
            return invalid(
                "fold.time_zone_default",
                format!("{:?} is not an IANA time zone", self.fold.time_zone_default),
            );
        }
        let reminders_min = foretell_domain::remind::policy::ANNOUNCEMENTS_MAX + self.fold.appointment_requests_max;
        if self.fold.appointment_reminders_max < reminders_min {
            // A reminder that was announced and is then forgotten would be announced again.
            let message = format!(
                "at least {reminders_min}: the announcements of a visit that a policy allows, plus on-demand requests"
            );
            return invalid("fold.appointment_reminders_max", message);
        }
        for component in self.components() {
            if let Err(InvalidSetting { key, message }) = component.validate() {
                return invalid(&format!("{}.{key}", component.section()), message);
            }
        }
        Ok(())
    }

    /// The components of a process, in the order in which their settings are checked.
    pub fn components(&self) -> [&dyn Component; 8] {
        [
            &self.topics,
            &self.http,
            &self.ops,
            &self.enrich,
            &self.reminders,
            &self.pipeline,
            &self.reads,
            &self.decisions,
        ]
    }

    /// The time zone rules for a process with these settings; it installs them before it reads anything.
    pub fn zone_rules(&self) -> Result<zone::Rules, Error> {
        let read = self.fold.time_zones_dir.as_deref().map_or_else(|| Ok(zone::Rules::default()), zones::read);
        read.map_err(|message| Error::Invalid { place: "fold.time_zones_dir".into(), message })
    }

    /// The settings of the parts of an instance.
    pub fn instance(&self) -> instance::Config {
        instance::Config {
            topic_prefix: self.topics.prefix.clone(),
            retention: self.topics.retention(),
            fold: self.fold.clone(),
            pipeline: self.pipeline.clone(),
            reads: self.reads.clone(),
            progress: self.progress.clone(),
            login: self.score.login.clone(),
            no_show: self.score.no_show.clone(),
            reminders: self.reminders.clone(),
            decisions: self.decisions.clone(),
            http: self.http.clone(),
        }
    }

    /// The settings as TOML, without secrets.
    pub fn dump(&self) -> String {
        // Through a table: written directly, each section would be compiled for four serializers.
        let written = Table::try_from(self).and_then(|table| toml::to_string(&table));
        written.unwrap_or_else(|error| format!("# cannot be written: {error}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(environment: &[(&str, &str)]) -> Result<Config, String> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        load(Layers { environment, ..Layers::default() }).map_err(|error| error.to_string())
    }

    #[test]
    fn a_removed_setting_is_ignored_with_a_notice() {
        let defaults: Table = DEFAULTS.parse().unwrap();
        for (section, key) in REMOVED {
            assert!(defaults.get(section).is_none_or(|table| table.get(key).is_none()), "{section}.{key} is a default");
            let name = format!("FORETELL__{}__{}", section.to_uppercase(), key.to_uppercase());
            let config = load(Layers { environment: vec![(name, "7".into())], ..Layers::default() }).unwrap();
            let [notice] = &config.notices[..] else { panic!("one notice: {:?}", config.notices) };
            assert!(notice.contains(&format!("{section}.{key} was removed")), "{notice}");
        }
        assert!(with(&[]).unwrap().notices.is_empty());
        let error = with(&[("FORETELL__PROGRESS__OTHER", "7")]).unwrap_err();
        assert!(error.contains("progress"), "{error}");
    }

    #[test]
    fn the_settings_have_room_below_the_limit() {
        assert!(
            document::depth::levels(DEFAULTS) <= document::depth::LEVELS_MAX / 2,
            "{}",
            document::depth::levels(DEFAULTS)
        );
    }

    #[test]
    fn the_file_and_the_code_agree_on_every_default() {
        let config = with(&[]).unwrap();
        assert_eq!(config.fold, view::Limits::default());
        assert_eq!(config.pipeline, pipeline::Config::default());
        assert_eq!(config.reads, rows::Config::default());
        assert_eq!(config.progress, progress::Config::default());
        assert_eq!(config.enrich, foretell_enrich::Config::default());
        assert_eq!(config.score.login, score::login::LoginPolicy::default());
        assert_eq!(config.score.no_show, score::no_show::Config::default());
        assert_eq!(config.reminders, remind::Config::default());
        assert_eq!(config.decisions, decisions::Config::default());
        assert_eq!(config.topics.retention(), log::Retention::default());
        assert_eq!(config.http, http::Config::default());
        assert_eq!(config.ops, http::ops::Config::default());
        assert_eq!(config.telemetry, crate::telemetry::Config::default());
    }

    #[test]
    #[cfg(feature = "kafka")]
    fn later_layers_win_and_keep_the_type_of_what_stands() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("foretell.toml");
        std::fs::write(&path, "log = \"disk:/a\"\n[kafka.properties]\n\"socket.timeout.ms\" = \"9\"\n").unwrap();
        let config = load(Layers {
            file: Some(&path),
            environment: vec![
                ("FORETELL__LOG".into(), "disk:/b".into()),
                ("FORETELL__TOPICS__PARTITIONS".into(), "12".into()),
                ("FORETELL__TOPICS__PREFIX".into(), "12".into()),
                ("FORETELL__REMINDERS__POLICY__CHANNELS_DEFAULT".into(), "email, sms".into()),
                ("FORETELL__KAFKA__USERNAME".into(), "123".into()),
                ("PATH".into(), "/bin".into()),
            ],
            flags: vec![("log", "disk:/c".into())],
        })
        .unwrap();
        assert_eq!(config.log, "disk:/c");
        assert_eq!((config.topics.partitions, config.topics.prefix.as_str()), (12, "12"));
        assert_eq!(config.reminders.policy.channels_default.len(), 2);
        assert_eq!(config.kafka.username.as_deref(), Some("123"));
        assert_eq!(config.kafka.properties.get("socket.timeout.ms").map(String::as_str), Some("9"));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (name, value, words) in [
            (
                "FORETELL__TOPICS__PARTITION",
                "3",
                vec!["topics", "unknown field `partition`", "Did you mean `partitions`?"],
            ),
            ("FORETELL__TOPICS__PARTITIONS", "many", vec!["topics.partitions", "invalid type"]),
            ("FORETELL__TOPICS__PARTITIONS", "0", vec!["topics.partitions", "from 1 to 1000"]),
            (
                "FORETELL__TOPICS__DECISION_RETENTION_DAYS",
                "0",
                vec!["topics.decision_retention_days", "from 1 to 36500"],
            ),
            (
                "FORETELL__FOLD__TIME_ZONE_DEFAULT",
                "Mars/Base",
                vec!["fold.time_zone_default", "is not an IANA time zone"],
            ),
            ("FORETELL__FOLD__TIME_ZONES_DIR", "/nowhere", vec!["fold.time_zones_dir", "/nowhere"]),
            (
                "FORETELL__SCORE__NO_SHOW__RECALIBRATION_HALF_LIFE_DAYS",
                "0.05",
                vec!["score.no_show", "recalibration_half_life_days", "1 or more"],
            ),
            ("FORETELL__FOLD__APPOINTMENT_REMINDERS_MAX", "16", vec!["fold.appointment_reminders_max", "at least 48"]),
            ("FORETELL__SCORE__LOGIN__DENY_AT", "0.1", vec!["score.login", "deny_at"]),
            ("FORETELL__SCORE__LOGIN__MODE", "faithfull", vec!["score.login.mode", "Did you mean `faithful`?"]),
        ] {
            let error = with(&[(name, value)]).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{name}={value}: {error}");
        }
    }

    #[test]
    #[cfg(feature = "kafka")]
    fn a_dump_is_complete_and_holds_no_secret() {
        let mut config =
            with(&[("FORETELL__KAFKA__PASSWORD", "hunter2"), ("FORETELL__CASSANDRA__PASSWORD", "hunter2")]).unwrap();
        config.kafka.properties.insert("sasl.password".into(), "hunter2".into());
        let dump = config.dump();
        assert!(dump.contains("sasl.password"));
        assert!(!dump.contains("hunter2"));
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), &dump).unwrap();
        load(Layers { file: Some(path.path()), ..Layers::default() }).unwrap();
    }
}
