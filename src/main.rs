//! The binary: parses the command line, runs one command, returns an exit code.

use foretell::cli::{parse, run};
use rustix::fs::Mode;
use std::io::Write;
use std::process::ExitCode;

/// Rows are many short-lived small maps: this allocator reduces the cost of folding them by a third.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // All files contain data about people: files get 0600 and directories 0700, including those of libraries.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    match run(parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            // If stderr is closed as well, the failure cannot be reported.
            let _ = writeln!(std::io::stderr(), "foretell: {failure}");
            ExitCode::FAILURE
        }
    }
}
