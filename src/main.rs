//! The binary: parse, run one command, exit code.

use foretell::cli::{parse, run};
use rustix::fs::Mode;
use std::io::Write;
use std::process::ExitCode;

/// Rows are many small maps that come and go: this allocator takes a third off the cost of folding them.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Whatever is written holds facts about people: files 0600, directories 0700, those of libraries too.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    match run(parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            // Where stderr is gone as well, there is no place left to report it.
            let _ = writeln!(std::io::stderr(), "foretell: {failure}");
            ExitCode::FAILURE
        }
    }
}
