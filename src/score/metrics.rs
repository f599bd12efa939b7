//! How good scores were, once the outcomes are known.
