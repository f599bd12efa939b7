//! Flags that override settings, in groups: each command accepts the groups that it reads, and rejects the others.

use super::ending::Failure;
use crate::config::{self, Config, Layers};
use crate::ops::inspect::Print;
use clap::Args;
use clap::builder::UnknownArgumentValueParser;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// After the options of a command, and before help.
const LAST: usize = 900;

/// The settings file: a flag of the whole program, before or after the command.
#[derive(Debug, Args)]
pub(super) struct File {
    /// Settings in TOML that override the defaults; `foretell config dump` prints all settings
    #[arg(long, global = true, value_name = "FILE", display_order = LAST)]
    pub(super) config: Option<PathBuf>,
}

/// URLs of log and store.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub(super) struct Data {
    /// URL of the log: disk:DIR or kafka://HOST:PORT,... [default: disk:./data]
    #[arg(long, global = true, value_name = "URL")]
    log: Option<String>,
    /// URL of the store: disk:DIR or cassandra://HOST:PORT,.../KEYSPACE [default: disk:./data]
    #[arg(long, global = true, value_name = "URL")]
    store: Option<String>,
}

/// Addresses that the process listens on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub(super) struct Listen {
    /// Address of the API; `:8080` means all IPv4 addresses [default: 127.0.0.1:8080]
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Address of probes and metrics, or `none` [default: 127.0.0.1:9464]
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    ops_listen: Option<String>,
    // Rejected with a hint, because other programs have these flags.
    #[arg(long, hide = true, aliases = ["host", "bind", "address"], value_parser = listen_instead())]
    port: Option<String>,
}

fn listen_instead() -> UnknownArgumentValueParser {
    UnknownArgumentValueParser::suggest_arg("--listen <ADDRESS:PORT>")
}

/// Files that resolve IP addresses.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub(super) struct Geo {
    /// MMDB file with the autonomous systems of IP addresses
    #[arg(long, global = true, value_name = "FILE")]
    geo_asn: Option<String>,
    /// MMDB file with the countries and cities of IP addresses
    #[arg(long, global = true, value_name = "FILE")]
    geo_city: Option<String>,
}

/// Output format.
#[derive(Debug, Args)]
pub(super) struct Output {
    /// Print JSON instead of text
    #[arg(long, global = true, display_order = LAST)]
    json: bool,
}

/// The log and store that a command uses, and its output format.
#[derive(Debug, Args)]
pub(super) struct Instance {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    data: Data,
}

/// The flags of one command line.
#[derive(Debug, Default)]
pub(super) struct Flags<'a> {
    settings: Vec<(&'static str, &'a str)>,
    json: bool,
}

impl<'a> Flags<'a> {
    fn set(mut self, pairs: [(&'static str, &'a Option<String>); 2]) -> Self {
        self.settings.extend(pairs.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?))));
        self
    }

    pub(super) fn data(self, data: &'a Data) -> Self {
        self.set([("log", &data.log), ("store", &data.store)])
    }

    pub(super) fn listen(self, listen: &'a Listen) -> Self {
        self.set([("http.listen", &listen.listen), ("ops.listen", &listen.ops_listen)])
    }

    pub(super) fn geo(self, geo: &'a Geo) -> Self {
        self.set([("enrich.geo_asn", &geo.geo_asn), ("enrich.geo_city", &geo.geo_city)])
    }

    pub(super) fn output(self, output: &Output) -> Self {
        Self { json: output.json, ..self }
    }

    pub(super) fn instance(self, Instance { output, data }: &'a Instance) -> Self {
        self.output(output).data(data)
    }

    pub(super) fn print(&self) -> Print {
        if self.json { Print::Json } else { Print::Table }
    }

    /// Reads the settings through all layers.
    ///
    /// # Errors
    /// A file that cannot be read, or an invalid setting.
    pub(super) fn load(&self, file: Option<&Path>) -> Result<Config, Failure> {
        let flags = self.settings.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        // Variables of other programs may not be text.
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        let environment = std::env::vars_os().filter_map(text).collect();
        Ok(config::load(Layers { file, environment, flags })?)
    }
}
