//! Which build this is: users name it in reports, and metrics and traces carry it.

/// The release, as in `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit, as 12 hexadecimal digits or as `FORETELL_COMMIT` named it at build time; `unknown` where the sources
/// came without a repository.
pub const COMMIT: &str = env!("FORETELL_BUILD_COMMIT");
/// Both, as in `0.1.0 (0123456789ab)`.
pub const VERSION_LONG: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("FORETELL_BUILD_COMMIT"), ")");
