//! A component: a part of the service that owns a section of the settings, and metrics.
//!
//! The settings of a component implement [`Component`]. The composition of a process only lists them: their checks run
//! when the settings are read, and their metrics exist before anything happens.

/// A part of the service, represented by its settings.
pub trait Component {
    /// Its section of the settings.
    fn section(&self) -> &'static str;

    /// Checks what the types of the settings cannot express.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    fn validate(&self) -> Result<(), InvalidSetting> {
        Ok(())
    }

    /// Exports the metrics of the component at zero.
    ///
    /// Prometheus computes the number of events as the difference between two samples. A counter that appears with its
    /// first event starts at 1, so `increase()` misses that event, and a metric that was never exported looks like a
    /// renamed one. So all labels with a closed set of values are exported before anything happens. Labels of
    /// partitions follow with the partitions of the process, names of API keys with their first rejected request.
    fn register_metrics(&self) {}
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidSetting {
    /// Its key within the section, with dots.
    pub key: String,
    /// What is wrong, and what to set instead.
    pub message: String,
}

impl InvalidSetting {
    /// A fault in a key of the section.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}
