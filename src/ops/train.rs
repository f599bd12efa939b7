//! `train`: asks an instance for a model of its log, and publishes one.

use super::Error;
use super::access::Access;
use foretell_domain::address::Family;
use foretell_lab::train::Learnt;
use foretell_lab::train::reading::{Asked, Told};
use indicatif::ProgressBar;
use serde_json::{Value, json};

/// What an instance learns from its log.
pub async fn no_show(access: &Access, asked: &Asked, bar: &ProgressBar) -> Result<Learnt, Error> {
    let mut lines = access.work("/admin/train/no-show", &json!(asked)).await?;
    while let Some(told) = lines.next::<Told>().await? {
        match told {
            Told::Begun { offsets } => {
                bar.reset();
                bar.set_length(offsets);
                bar.set_message("offsets");
            }
            Told::Read { offsets } => bar.inc(offsets),
            Told::Tried { candidates, of } => {
                bar.set_length(of as u64);
                bar.set_position(candidates as u64);
                bar.set_message("candidates");
            }
            Told::Done(learnt) => return Ok(*learnt),
            Told::Failed { detail } => return Err(Error::Answer(detail)),
        }
    }
    Err(Error::Answer("the answer ended before there was a model; ask again".into()))
}

/// Publishes a model for a tenant; answers its version.
pub async fn publish(access: &Access, tenant: &str, learnt: &Learnt) -> Result<String, Error> {
    // Where nobody serves, somebody has to fold what is published.
    let _folding = access.fold(Family::Policies);
    let answer = access.put("/v1/models/no-show", tenant, &json!(learnt.model)).await?;
    let version = answer.get("version").and_then(Value::as_str).unwrap_or_default();
    Ok(version.to_owned())
}
