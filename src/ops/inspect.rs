//! `inspect`: the contents of the log, how far it is folded, and the contents of a row.

use super::Error;
use super::access::Access;
use serde_json::Value;
use std::io::Write;

/// What to inspect.
#[derive(Debug, Clone)]
pub enum What {
    /// The partitions of every topic, with their offsets.
    Topics,
    /// The checkpoints of every family, with their lag.
    Positions,
    /// The partials of a row, decoded.
    Row {
        /// The view.
        view: String,
        /// `tenant:key`.
        key: String,
        /// The bucket, for views whose rows are in buckets of time.
        bucket: Option<i64>,
    },
}

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Print {
    /// A table.
    Table,
    /// JSON, as returned by the instance.
    Json,
}

/// Queries the instance, and prints to `out`.
pub async fn inspect(access: &Access, what: &What, print: Print, out: &mut dyn Write) -> Result<(), Error> {
    let answer = access.get(&path(what)).await?;
    if print == Print::Json {
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    match what {
        What::Topics => topics(&answer, out)?,
        What::Positions => positions(&answer, out)?,
        What::Row { view, key, .. } if answer.as_array().is_none_or(Vec::is_empty) => {
            return Err(Error::Answer(no_row(view, key)));
        }
        What::Row { .. } => writeln!(out, "{answer:#}")?,
    }
    Ok(())
}

fn no_row(view: &str, key: &str) -> String {
    match key.contains(':') {
        true => format!("no row {key:?} in view {view}"),
        false => format!("no row {key:?} in view {view}: a key begins with its tenant, as in default:{key}"),
    }
}

fn path(what: &What) -> String {
    match what {
        What::Topics => "/admin/topics".into(),
        What::Positions => "/admin/positions".into(),
        What::Row { view, key, bucket } => {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("key", key);
            if let Some(bucket) = bucket {
                query.append_pair("bucket", &bucket.to_string());
            }
            format!("/admin/rows/{}?{}", urlencoded(view), query.finish())
        }
    }
}

pub(super) fn urlencoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn topics(answer: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "{:<28}{:>10}{:>14}{:>14}", "topic", "partition", "start", "end")?;
    for topic in answer.as_array().into_iter().flatten() {
        let partitions = topic["partitions"].as_array().into_iter().flatten();
        for (partition, extent) in partitions.enumerate() {
            let name = topic["topic"].as_str().unwrap_or_default();
            let [start, end] = [&extent[0], &extent[1]].map(Value::to_string);
            writeln!(out, "{name:<28}{partition:>10}{start:>14}{end:>14}")?;
        }
    }
    Ok(())
}

fn positions(answer: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{:<14}{:>11} {:<9}{:>10}{:>14}{:>14}{:>10}",
        "family", "generation", "stage", "partition", "next", "end", "lag ms"
    )?;
    for position in answer.as_array().into_iter().flatten() {
        let family = position["family"].as_str().unwrap_or_default();
        let stage = position["stage"].as_str().unwrap_or_default();
        let next = position["next"].as_i64().unwrap_or(0);
        let lag = position["lag_ms"].as_u64().map(|lag_ms| lag_ms.to_string()).unwrap_or_default();
        let [generation, partition, end] = ["generation", "partition", "end"].map(|name| position[name].to_string());
        writeln!(out, "{family:<14}{generation:>11} {stage:<9}{partition:>10}{next:>14}{end:>14}{lag:>10}")?;
    }
    Ok(())
}
