//! Additions to `--help` and the manual pages: commands in groups, and examples.

use super::Cli;
use super::ending::Failure;
use clap::builder::StyledStr;
use clap::{Command, CommandFactory, FromArgMatches};
use std::fmt::Write;
use std::path::Path;

/// Commands by task, in the order of the help.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Serve", &["serve", "demo", "health"]),
    ("Data", &["import", "migrate", "backup"]),
    ("Inspect and repair", &["inspect", "verify", "rebuild", "dead-letters"]),
    ("Scores", &["policy", "report", "train", "evaluate", "simulate", "calibrate"]),
    ("Settings and documents", &["config", "openapi", "completions", "man", "help"]),
];

/// Examples of each command; a command with subcommands has those of all of them.
const EXAMPLES: [(&str, &[(&str, &str)]); 21] = [
    (
        "",
        &[
            ("See what it does in a minute", "foretell demo"),
            ("Serve the API on 127.0.0.1:8080, with data in ./data", "foretell serve"),
            (
                "Serve on Kafka and Cassandra",
                "foretell serve --log kafka://broker:9092 --store cassandra://node:9042/foretell",
            ),
            ("Import existing events", "foretell import logins logins.jsonl --format events"),
        ],
    ),
    (
        "serve",
        &[
            ("Everything in one process, with data in ./data", "foretell serve"),
            (
                "Accept requests from other machines; the first start prints an API key",
                "foretell serve --listen :8080 --first-key",
            ),
            (
                "Run a single role, with Kafka and Cassandra",
                "foretell serve --roles views --log kafka://broker:9092 --store cassandra://node:9042/foretell",
            ),
            (
                "Read settings from a file, and log at debug level",
                "FORETELL__TELEMETRY__LOG_FILTER=debug foretell serve --config foretell.toml",
            ),
        ],
    ),
    (
        "demo",
        &[("Run the demo, then try the service", "foretell demo"), ("Print answers as JSON", "foretell demo --json")],
    ),
    ("health", &[("Check a service on this machine", "foretell health http://127.0.0.1:8080")]),
    (
        "import",
        &[
            (
                "Import into ./data, whether a service is running or not",
                "foretell import logins logins.jsonl --format events",
            ),
            (
                "Import into a running service, for one tenant",
                "foretell import appointments visits.jsonl.gz --format events --to http://127.0.0.1:8080 --tenant clinic",
            ),
        ],
    ),
    (
        "migrate",
        &[
            (
                "Create missing topics and tables in the clusters",
                "foretell migrate --log kafka://broker:9092 --store cassandra://node:9042/foretell",
            ),
            ("Spread logins over more partitions", "foretell migrate --repartition logins=16"),
        ],
    ),
    (
        "backup",
        &[(
            "Copy the log, then serve the copy",
            "foretell backup /backup/monday && foretell serve --log disk:/backup/monday --store disk:/backup/monday",
        )],
    ),
    (
        "inspect",
        &[
            ("Show the progress of the views", "foretell inspect positions"),
            ("Show the row of a user", "foretell inspect row user default:ada"),
        ],
    ),
    (
        "verify",
        &[
            ("Verify all views", "foretell verify"),
            ("Verify one view, with JSON output", "foretell verify user --json"),
        ],
    ),
    ("rebuild", &[("Rebuild after a change of settings under [fold]", "foretell rebuild logins")]),
    (
        "dead-letters",
        &[
            ("List open letters", "foretell dead-letters list"),
            ("Print one letter", "foretell dead-letters show 0/17"),
            (
                "Send records again after fixing the cause",
                "foretell dead-letters redrive --code WRONG_PARTITION --execute",
            ),
        ],
    ),
    (
        "policy",
        &[
            ("List the variables of rules", "foretell policy variables"),
            ("Check a policy", "foretell policy check policy.toml"),
            ("Show which logins a policy would challenge", "foretell policy test policy.toml --against logins.jsonl"),
        ],
    ),
    (
        "report",
        &[
            ("Report on decisions since May", "foretell report decisions --since 2026-05-01T00:00:00Z"),
            ("Compare predicted risks with outcomes, with a chart", "foretell report no-show --svg calibration.svg"),
        ],
    ),
    (
        "train",
        &[
            ("Train on the log, and print the result", "foretell train no-show"),
            ("Train, and use the model for scores from now on", "foretell train no-show --publish"),
        ],
    ),
    (
        "evaluate",
        &[("Score logins, one per line", "foretell evaluate logins logins.jsonl --format events > scores.jsonl")],
    ),
    ("simulate", &[("Generate a year of a thousand users", "foretell simulate logins --output logins.jsonl")]),
    ("calibrate", &[("Write thresholds into a policy", "foretell calibrate logins logins.jsonl --policy policy.toml")]),
    (
        "config",
        &[
            ("Create a settings file", "foretell config dump --defaults > foretell.toml"),
            ("Check a settings file", "foretell config check --config foretell.toml"),
        ],
    ),
    ("openapi", &[("Write the OpenAPI document to a file", "foretell openapi > openapi.json")]),
    (
        "completions",
        &[(
            "Enable completions in bash; add the line to ~/.bashrc to keep them",
            "source <(foretell completions bash)",
        )],
    ),
    ("man", &[("Install the manual pages", "foretell man ~/.local/share/man/man1")]),
];

/// Longest line of an example, in columns.
const LINE_COLUMNS_MAX: usize = 76;

/// Parses the command line; prints help or an error and exits if there is no command to run.
pub fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The command line with groups and examples.
pub(super) fn command() -> Command {
    let mut command = Cli::command();
    for (path, examples) in EXAMPLES {
        let shown = shown(examples);
        command = match path {
            "" => command.after_help(shown.clone()).after_long_help(shown),
            path => command.mut_subcommand(path, |command| command.after_long_help(shown)),
        };
    }
    let (groups, header) = (groups(&command), *command.get_styles().get_header());
    let options = format!("{header}Options:{header:#}\n{{options}}");
    let template = format!("{{about-with-newline}}\n{{usage-heading}} {{usage}}\n{groups}\n{options}{{after-help}}");
    command.help_template(template)
}

/// The list of commands, in groups.
fn groups(command: &Command) -> StyledStr {
    let styles = command.get_styles();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let mut text = StyledStr::new();
    for (group, names) in GROUPS {
        _ = write!(text, "\n{header}{group}:{header:#}\n");
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map_or_else(|| "Print help of a command".to_owned(), ToString::to_string);
            _ = writeln!(text, "  {literal}{name:<13}{literal:#} {about}");
        }
    }
    text
}

/// Examples, in lines that fit a terminal of 80 columns and can be copied.
fn shown(examples: &[(&str, &str)]) -> String {
    let lines = examples.iter().map(|(about, line)| format!("\n  # {about}\n  {}", broken(line)));
    format!("Examples:{}", lines.collect::<String>())
}

/// A command, broken into as many lines as it needs.
fn broken(line: &str) -> String {
    let mut text = String::new();
    let mut columns = 0;
    for word in line.split(' ') {
        // Leave space for the margin and the backslash.
        if columns > 0 && columns + 1 + word.len() > LINE_COLUMNS_MAX - 4 {
            text.push_str(" \\\n     ");
            columns = 4;
        }
        if !text.is_empty() {
            text.push(' ');
            columns += 1;
        }
        text.push_str(word);
        columns += word.len();
    }
    text
}

/// Writes a manual page for the program and for each command into a directory, which is created if it is missing.
///
/// # Errors
/// The directory cannot be written.
pub(super) fn man_pages(directory: &Path) -> Result<(), Failure> {
    let written = std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(command(), directory));
    written.map_err(|cause| Failure::Other(format!("cannot write manual pages to {}: {cause}", directory.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Layers};
    use clap::Parser;
    use clap::error::ErrorKind;
    use std::collections::BTreeSet;

    /// The words of a command line of the help, up to a pipe or a second command.
    fn words(line: &str) -> impl Iterator<Item = &str> {
        let own = line.split(|c: char| c.is_whitespace() || "()".contains(c)).skip_while(|word| *word != "foretell");
        own.take_while(|word| !matches!(*word, "&&" | ">" | "|" | ""))
    }

    #[test]
    fn every_command_is_in_one_group_and_has_examples_that_parse() {
        let grouped: Vec<_> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        let known: BTreeSet<_> = command().get_subcommands().map(|known| known.get_name().to_owned()).collect();
        let all: BTreeSet<_> = grouped.iter().map(ToString::to_string).filter(|name| name != "help").collect();
        assert_eq!((&all, grouped.len()), (&known, known.len() + 1));
        for name in known {
            let (_, examples) = EXAMPLES.iter().find(|(path, _)| **path == name).expect(&name);
            for (about, line) in *examples {
                let parsed = Cli::try_parse_from(words(line)).unwrap_or_else(|error| panic!("{about}: {error}"));
                assert!(!about.ends_with('.'), "{about}");
                assert!(words(line).any(|word| word == name), "{line} is of {name}: {parsed:?}");
                let whole = broken(line).replace(" \\\n", "").split_whitespace().collect::<Vec<_>>().join(" ");
                assert_eq!(&whole, line, "nothing is lost where it is broken");
                assert!(broken(line).lines().all(|line| line.len() <= LINE_COLUMNS_MAX), "{}", broken(line));
            }
        }
    }

    #[test]
    fn every_description_is_one_line_and_every_option_has_one() {
        fn walk(command: &Command, path: &str) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && about.len() <= 70 && !about.ends_with('.'), "{path}: {about:?}");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty() && !help.ends_with('.'), "{path} {}: {help:?}", argument.get_id());
            }
            for inner in command.get_subcommands() {
                walk(inner, &format!("{path} {}", inner.get_name()));
            }
        }
        walk(&command(), "foretell");
    }

    #[test]
    fn the_defaults_that_options_name_are_those_of_the_settings() {
        let config = config::load(Layers::default()).unwrap();
        let mut serve = command().find_subcommand("serve").unwrap().clone();
        let help = serve.render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for default in [&config.log, &config.store, &config.http.listen, &config.ops.listen] {
            assert!(help.contains(&format!("[default: {default}]")), "{default}: {help}");
        }
    }

    #[test]
    fn manual_pages_have_a_page_for_each_command_with_its_examples() {
        let directory = tempfile::tempdir().unwrap();
        man_pages(directory.path()).unwrap();
        let page = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert!(page("foretell.1").contains("foretell\\-serve(1)"));
        assert!(page("foretell-inspect-row.1").contains("default:ada"));
        assert!(page("foretell-serve.1").contains("foretell serve"));
        let refused = man_pages(&directory.path().join("foretell.1")).unwrap_err().to_string();
        assert!(refused.contains("foretell.1"), "{refused}");
    }

    #[test]
    fn the_commands_of_the_readme_parse() {
        let readme = include_str!("../../README.md");
        let lines = readme.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let own: Vec<_> = lines.filter(|line| line.starts_with("foretell ")).collect();
        assert!(own.len() >= 6, "the README shows how it is run: {own:?}");
        for line in own {
            match Cli::try_parse_from(words(line)) {
                Ok(_) => {}
                Err(help) if help.kind() == ErrorKind::DisplayHelp => {}
                Err(error) => panic!("{line}: {error}"),
            }
        }
    }
}
