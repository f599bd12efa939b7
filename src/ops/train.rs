//! `train`: trains a model from the log of an instance, and publishes one.

use super::Error;
use super::access::Access;
use super::jobs::{self, Console};
use crate::app::training::{TrainingJob, TrainingQuery};
use foretell_domain::address::Family;
use foretell_lab::train::TrainedModel;
use serde_json::{Value, json};

/// Trains a model on the log of an instance.
pub async fn no_show(access: &Access, query: &TrainingQuery, console: &mut Console<'_>) -> Result<TrainedModel, Error> {
    jobs::run::<TrainingJob>(access, query, console, &mut |(), _| Ok(())).await
}

/// Publishes a model for a tenant; returns its version.
pub async fn publish(access: &Access, tenant: &str, trained: &TrainedModel) -> Result<String, Error> {
    // If no process serves, this one has to fold the published model.
    let _folding = access.fold(Family::Policies);
    let answer = access.put("/v1/models/no-show", tenant, &json!(trained.model)).await?;
    let version = answer.get("version").and_then(Value::as_str).unwrap_or_default();
    Ok(version.to_owned())
}
