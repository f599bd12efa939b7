//! The binary: parse, run one command, exit code.

use clap::Parser;
use foretell::cli::{Cli, run};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to tell if stderr is gone as well.
            let _ = writeln!(std::io::stderr(), "foretell: {failure}");
            ExitCode::FAILURE
        }
    }
}
