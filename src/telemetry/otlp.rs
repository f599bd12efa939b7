//! Spans over OTLP: their destination, the resource that describes this process, and losses when no collector accepts
//! them.
//!
//! The variables are those of the OpenTelemetry specification, so that a process is configured like every other one in
//! a cluster. `opentelemetry-otlp` and the SDK read the others themselves (headers, timeout, sampler, batches,
//! resource).

use crate::telemetry::{Config, Error};
use crate::version::VERSION;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use url::Url;

/// The path of traces below a base endpoint.
const TRACES_PATH: &str = "v1/traces";
/// Minimum time between two log lines about lost spans.
const PAUSE: Duration = Duration::from_secs(60);
/// The port on which collectors expect gRPC.
const GRPC_PORT: u16 = 4317;

/// Looks up an environment variable.
pub(super) type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Destination of spans, if any: the setting, else the environment. `OTEL_SDK_DISABLED=true` and
/// `OTEL_TRACES_EXPORTER=none` disable both.
///
/// A setting without a path is a base, and so is `OTEL_EXPORTER_OTLP_ENDPOINT`; every other endpoint is used unchanged.
pub(super) fn endpoint(setting: Option<&str>, variable: Variable<'_>) -> Result<Option<Url>, Error> {
    let variable = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let is = |name: &str, value: &str| variable(name).is_some_and(|found| found.eq_ignore_ascii_case(value));
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return Ok(None);
    }
    if let Some(setting) = setting.filter(|setting| !setting.trim().is_empty()) {
        let url = parsed("telemetry.otlp_endpoint", setting.trim())?;
        return Ok(Some(if matches!(url.path(), "" | "/") { below(url) } else { url }));
    }
    const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    match (variable(OWN), variable(BASE)) {
        (Some(own), _) => parsed(OWN, &own).map(Some),
        (None, Some(base)) => parsed(BASE, &base).map(|url| Some(below(url))),
        (None, None) => Ok(None),
    }
}

fn parsed(name: &'static str, text: &str) -> Result<Url, Error> {
    let expected = "expected a URL as http://localhost:4318";
    let url = Url::parse(text).map_err(|cause| Error::Endpoint(name, format!("{text:?}: {cause}; {expected}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(Error::Endpoint(name, format!("{text:?} is not http or https; {expected}")));
    }
    Ok(url)
}

/// The endpoint of traces below a base.
fn below(mut base: Url) -> Url {
    let path = format!("{}/{TRACES_PATH}", base.path().trim_end_matches('/'));
    base.set_path(&path);
    base
}

/// A notice for operators about an endpoint, before the first span is lost.
pub(super) fn notice(endpoint: &Url, variable: Variable<'_>) -> Option<String> {
    let protocol = variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
    let is_grpc = protocol.as_deref() == Some("grpc") || endpoint.port() == Some(GRPC_PORT);
    is_grpc.then(|| {
        format!(
            "spans go to {} as OTLP over HTTP (http/protobuf); gRPC is not supported: use the collector's HTTP port, \
             usually 4318",
            shown(endpoint)
        )
    })
}

/// The endpoint without a password that it may contain.
fn shown(endpoint: &Url) -> String {
    let mut shown = endpoint.clone();
    let _ = shown.set_password(None);
    let _ = shown.set_username("");
    shown.set_query(None);
    shown.into()
}

/// Exports spans to an endpoint.
pub(super) fn provider(endpoint: &Url, config: &Config) -> Result<SdkTracerProvider, Error> {
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().with_endpoint(endpoint.as_str()).build()?;
    let exporter = Reported { exporter, losses: Losses::new(shown(endpoint)) };
    Ok(SdkTracerProvider::builder().with_resource(resource(config)).with_batch_exporter(exporter).build())
}

/// The resource that describes this process in traces. Environment variables (`OTEL_SERVICE_NAME`,
/// `OTEL_RESOURCE_ATTRIBUTES`) override defaults, and settings override the environment.
fn resource(config: &Config) -> Resource {
    let name = Key::from_static_str("service.name");
    let environment = Resource::builder().build();
    let named = environment.get(&name).filter(|name| !name.as_str().starts_with("unknown_service"));
    let is_default = config.service_name == Config::default().service_name;
    let builder = Resource::builder().with_service_name(match named {
        Some(named) if is_default => named.as_str().into_owned(),
        _ => config.service_name.clone(),
    });
    let own = [
        KeyValue::new("service.version", VERSION),
        KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()),
    ];
    let own = own.into_iter().filter(|own| environment.get(&own.key).is_none());
    builder.with_attributes(own).build()
}

/// An exporter that logs its failures.
#[derive(Debug)]
struct Reported<E> {
    exporter: E,
    losses: Losses,
}

impl<E: SpanExporter> SpanExporter for Reported<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let exported = self.exporter.export(batch).await;
        if let Err(error) = &exported {
            self.losses.count(spans, error, Instant::now());
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.losses.log("the process ends");
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Spans that no collector accepted: logged at once, and further ones together once a minute.
#[derive(Debug)]
struct Losses {
    endpoint: String,
    unlogged: Mutex<UnloggedLosses>,
}

#[derive(Debug, Default)]
struct UnloggedLosses {
    spans: u64,
    logged_at: Option<Instant>,
}

impl Losses {
    fn new(endpoint: String) -> Self {
        Self { endpoint, unlogged: Mutex::default() }
    }

    fn count(&self, spans: u64, error: &dyn std::fmt::Display, now: Instant) {
        if let Some(spans) = self.counted(spans, now) {
            self.warn(spans, error);
        }
    }

    /// Logs the losses since the last line.
    fn log(&self, why: &str) {
        let spans = std::mem::take(&mut self.unlogged.lock().unwrap_or_else(PoisonError::into_inner).spans);
        if spans > 0 {
            self.warn(spans, &why);
        }
    }

    fn warn(&self, spans: u64, error: &dyn std::fmt::Display) {
        tracing::warn!(endpoint = self.endpoint, %error, spans, "spans were not exported and are lost");
    }

    /// The number of lost spans to log, if a line is due.
    fn counted(&self, spans: u64, now: Instant) -> Option<u64> {
        let mut unlogged = self.unlogged.lock().unwrap_or_else(PoisonError::into_inner);
        unlogged.spans += spans;
        if unlogged.logged_at.is_some_and(|logged_at| now.duration_since(logged_at) < PAUSE) {
            return None;
        }
        unlogged.logged_at = Some(now);
        Some(std::mem::take(&mut unlogged.spans))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(setting: Option<&str>, variables: &[(&str, &str)]) -> Option<String> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        endpoint(setting, &variable).unwrap().map(String::from)
    }

    #[test]
    fn a_base_endpoint_gets_the_path_of_traces_and_any_other_stays() {
        const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
        const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        for (setting, variables, expected) in [
            (None, &[][..], None),
            (Some(" "), &[], None),
            (Some("http://h:4318"), &[], Some("http://h:4318/v1/traces")),
            (Some("http://h:4318/"), &[], Some("http://h:4318/v1/traces")),
            (Some("http://h:4318/v1/traces"), &[], Some("http://h:4318/v1/traces")),
            (Some("https://h/otlp"), &[], Some("https://h/otlp")),
            (None, &[(BASE, "http://b:4318")], Some("http://b:4318/v1/traces")),
            (None, &[(BASE, "http://b/otlp/")], Some("http://b/otlp/v1/traces")),
            (None, &[(BASE, "http://b:4318"), (OWN, "http://t:9/x")], Some("http://t:9/x")),
            (None, &[(OWN, ""), (BASE, "http://b:4318")], Some("http://b:4318/v1/traces")),
            (None, &[(OWN, "http://t:9")], Some("http://t:9/")),
            (Some("http://h:4318"), &[(OWN, "http://t:9/x")], Some("http://h:4318/v1/traces")),
            (Some("http://h:4318"), &[("OTEL_SDK_DISABLED", "TRUE")], None),
            (Some("http://h:4318"), &[("OTEL_SDK_DISABLED", "false")], Some("http://h:4318/v1/traces")),
            (None, &[(BASE, "http://b:4318"), ("OTEL_TRACES_EXPORTER", "none")], None),
        ] {
            assert_eq!(found(setting, variables).as_deref(), expected, "{setting:?} {variables:?}");
        }
    }

    #[test]
    fn an_endpoint_that_is_no_url_is_refused_by_name() {
        let none = |_: &str| None;
        for text in ["localhost:4318", "h", "unix:/x", "http://"] {
            let error = endpoint(Some(text), &none).unwrap_err().to_string();
            assert!(
                error.starts_with("telemetry.otlp_endpoint: ") && error.contains("http://localhost:4318"),
                "{error}"
            );
        }
        let variable = |name: &str| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| "nowhere".to_owned());
        assert!(endpoint(None, &variable).unwrap_err().to_string().starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: "));
    }

    #[test]
    fn a_port_for_grpc_is_noticed() {
        let none = |_: &str| None;
        let grpc = |name: &str| (name == "OTEL_EXPORTER_OTLP_PROTOCOL").then(|| "grpc".to_owned());
        let url = |text: &str| Url::parse(text).unwrap();
        assert_eq!(notice(&url("http://h:4318/v1/traces"), &none), None);
        assert!(
            notice(&url("http://u:secret@h:4317/v1/traces?k=secret"), &none).unwrap().contains("to http://h:4317/v1")
        );
        assert!(notice(&url("http://h:4318/v1/traces"), &grpc).unwrap().contains("gRPC is not supported"));
    }

    #[test]
    fn losses_are_told_at_once_and_then_once_a_minute() {
        let losses = Losses::new("http://h/".into());
        let begun = Instant::now();
        let second = |n| begun + Duration::from_secs(n);
        assert_eq!(losses.counted(2, begun), Some(2));
        assert_eq!((losses.counted(3, second(5)), losses.counted(4, second(59))), (None, None));
        assert_eq!(losses.counted(5, second(60)), Some(12));
        assert_eq!(losses.counted(1, second(61)), None);
    }

    #[test]
    fn a_resource_names_service_version_and_instance() {
        let of =
            |resource: &Resource, key: &'static str| resource.get(&Key::from_static_str(key)).map(|v| v.to_string());
        let (one, other) = (resource(&Config::default()), resource(&Config::default()));
        assert_eq!(of(&one, "service.name").as_deref(), Some("foretell"));
        assert_eq!(of(&one, "service.version").as_deref(), Some(VERSION));
        assert_ne!(of(&one, "service.instance.id"), of(&other, "service.instance.id"));
    }
}
