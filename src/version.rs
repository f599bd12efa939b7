//! The version of the build, for bug reports, metrics and traces.

/// The release, as in `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit, as 12 hexadecimal digits or the value of `FORETELL_COMMIT` at build time; `unknown` if the sources
/// were not in a repository.
pub const COMMIT: &str = env!("FORETELL_BUILD_COMMIT");
/// Both, as in `0.1.0 (0123456789ab)`.
pub const VERSION_LONG: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("FORETELL_BUILD_COMMIT"), ")");
