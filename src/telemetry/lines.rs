//! JSON log lines with `trace_id` and `span_id` at their top level, where collectors look for them.

use foretell_telemetry::trace;
use std::fmt;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes an event as `tracing_subscriber` does, and adds the trace of the request or record that it belongs to.
pub(super) struct Traced(Format<Json>);

impl Traced {
    pub(super) fn new() -> Self {
        Self(tracing_subscriber::fmt::format().json().with_current_span(true).with_span_list(false))
    }
}

impl<S, N> FormatEvent<S, N> for Traced
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some((trace_id, span_id)) = trace::current() else {
            return self.0.format_event(context, out, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        // The format ends with an object and a newline.
        match line.strip_suffix("}\n") {
            Some(object) => {
                writeln!(out, "{object},\"trace_id\":\"{trace_id}\",\"span_id\":\"{span_id}\"}}")
            }
            None => out.write_str(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderMap;
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_line_within_a_request_names_trace_and_span_and_others_do_not() {
        let written = Written::default();
        let to = written.clone();
        let lines = tracing_subscriber::fmt::layer().json().event_format(Traced::new()).with_writer(move || to.clone());
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines));
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let caller = HeaderMap::from_iter([("traceparent".parse().unwrap(), traceparent.parse().unwrap())]);
        tracing::info!("outside");
        let line = tracing::info_span!("request", trace_id = tracing::field::Empty);
        trace::scope(trace::caller(&caller), &tracing::Span::none(), &line, async { tracing::info!("inside") }).await;
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["fields"]["message"], lines[0].get("trace_id")), (&"outside".into(), None));
        assert_eq!(lines[1]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(lines[1]["span"]["trace_id"], lines[1]["trace_id"]);
        assert_eq!(lines[1]["span_id"].as_str().unwrap().len(), 16);
        assert_ne!(lines[1]["span_id"], "b7ad6b7169203331", "the line is this process's, not its caller's");
    }
}
