//! Models: which one scores visits, effective from one request to the next.

use crate::instance::{Answer, Instance, booked, event};
use foretell_domain::score::no_show::input::{Attribute, Input};
use foretell_domain::score::no_show::model::{Basis, NoShowModel, Term, Training, VisitFilter};
use reqwest::Method;
use serde_json::{Value, json};

const MODEL: &str = "/v1/models/no-show";

/// A model with the lead and an attribute as inputs.
fn model(attribute: &str, weight: f64) -> Value {
    let term = |input, basis: Basis, weights: Vec<f64>| Term {
        input,
        of: VisitFilter::All,
        basis,
        weights,
        absent: 0.0,
        centre: 0.25,
    };
    let model = NoShowModel {
        format: foretell_domain::score::no_show::model::FORMAT,
        training: Training { rows: 4_000, missed: 800, ..Training::default() },
        intercept: -1.0,
        lead_rates: [0.2; 12],
        prior_no_shows: 1.5,
        terms: vec![
            term(Input::LeadDays, Basis::Steps(vec![1.0]), vec![0.5]),
            term(Input::Attribute(Attribute::new(attribute)), Basis::Hinges(vec![0.0]), vec![weight]),
        ],
    };
    serde_json::to_value(model).unwrap()
}

async fn put(instance: &Instance, document: &Value, if_match: Option<&str>) -> Answer {
    let request = instance.request(Method::PUT, MODEL).json(document);
    let request = if_match.iter().fold(request, |request, tag| request.header("if-match", *tag));
    Answer::of(request.send().await.unwrap()).await
}

async fn considered(instance: &Instance, age: f64) -> Value {
    let considered = json!({
        "client_id": "c", "starts_at": "2026-03-11T09:30:00Z", "booked_at": "2026-03-01T09:30:00Z",
        "attributes": {"age": age},
    });
    instance.post("/v1/risk/appointments", &considered).await.body
}

fn effect(answer: &Value, code: &str) -> Option<f64> {
    let reasons = answer["reasons"].as_array().unwrap();
    reasons.iter().find(|reason| reason["code"] == code).map(|reason| reason["effect"].as_f64().unwrap())
}

#[tokio::test]
async fn a_published_model_scores_at_once_and_every_answer_names_it() {
    let instance = Instance::start().await;
    let before = instance.get(MODEL).await;
    assert_eq!(before.status, 200, "{:?}", before.body);
    assert_eq!(before.body["model"], json!({"id": "no-show-two-counters", "version": "1"}));
    assert_eq!((&before.body["document"], &before.body["reliability"]), (&Value::Null, &json!([])));
    assert_eq!(considered(&instance, 30.0).await["model"]["id"], "no-show-two-counters");
    for (version, weight) in [("1", 0.02), ("2", -0.02)] {
        let answer = put(&instance, &model("age", weight), None).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        assert_eq!(answer.body["model"], json!({"id": "no-show-trained", "version": version}));
        assert_eq!(answer.body["inputs"], json!(["lead_days", "attribute:age"]));
        let scored = considered(&instance, 30.0).await;
        assert_eq!(scored["model"], json!({"id": "no-show-trained", "version": version}));
        assert!((effect(&scored, "ATTRIBUTE").unwrap() - (weight * 30.0 - 0.25)).abs() < 1e-9);
        assert!((effect(&scored, "LEAD_TIME").unwrap() - 0.25).abs() < 1e-9);
        assert_eq!(effect(&scored, "CALIBRATION"), Some(0.0), "nothing has become of any visit yet");
        let sum: f64 = scored["reasons"].as_array().unwrap().iter().map(|r| r["effect"].as_f64().unwrap()).sum();
        assert!((1.0 / (1.0 + (-sum).exp()) - scored["score"].as_f64().unwrap()).abs() < 1e-12);
        assert_eq!(scored["warnings"], json!([]));
    }
    let versions = instance.get("/v1/models/no-show/versions").await.body;
    assert_eq!(versions["versions"].as_array().unwrap().len(), 2);
    // Reverting means publishing an earlier document, or none.
    let back = put(&instance, &versions["versions"][1]["document"], Some("\"2\"")).await;
    assert_eq!((back.status, &back.body["version"]), (200, &json!("3")));
    assert!((effect(&considered(&instance, 30.0).await, "ATTRIBUTE").unwrap() - 0.35).abs() < 1e-9);
    assert_eq!(put(&instance, &json!({}), None).await.body["model"]["id"], "no-show-two-counters");
    assert_eq!(considered(&instance, 30.0).await["model"]["id"], "no-show-two-counters");
}

/// A considered visit has the same attributes as a booking.
#[tokio::test]
async fn what_for_where_and_with_whom_are_attributes_of_a_considered_visit() {
    let instance = Instance::start().await;
    for name in ["service", "location_id", "practitioner_id"] {
        let mut document = model(name, 0.0);
        document["terms"][1]["basis"] = json!({"levels": ["north"]});
        document["terms"][1]["weights"] = json!([0.75]);
        let answer = put(&instance, &document, None).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        for (value, expected) in [("north", 0.5), ("south", -0.25)] {
            let considered = json!({"client_id": "c", "starts_at": "2026-03-11T09:30:00Z", name: value});
            let scored = instance.post("/v1/risk/appointments", &considered).await.body;
            assert_eq!(effect(&scored, "ATTRIBUTE"), Some(expected), "{name} {value}: {scored}");
        }
    }
}

#[tokio::test]
async fn what_must_not_score_is_refused() {
    let instance = Instance::start().await;
    for (document, pointer) in [
        (model("gender", 0.1), "/terms/1/input"),
        (model("Religion", 0.1), "/terms/1/input"),
        (json!({"format": 1}), ""),
    ] {
        let refused = put(&instance, &document, None).await;
        assert_eq!((refused.status, &refused.body["errors"][0]["code"]), (422, &json!("INVALID_POLICY")));
        assert_eq!(refused.body["errors"][0]["pointer"], pointer, "{:?}", refused.body);
    }
    let stale = put(&instance, &model("age", 0.1), Some("\"7\"")).await;
    assert_eq!(stale.problem(), (412, "PRECONDITION_FAILED"));
    assert_eq!(instance.get("/v1/policies/no-show-model").await.problem(), (404, "POLICY_NOT_FOUND"));
    assert_eq!(considered(&instance, 30.0).await["model"]["id"], "no-show-two-counters");
}

#[tokio::test]
async fn outcomes_correct_the_model_and_show_how_reliable_it_is() {
    let instance = Instance::start().await;
    put(&instance, &model("age", 0.0), None).await;
    // 40 visits of February, booked ten days ahead, for which the model predicts 27 %: 24 of them missed.
    for n in 0..40 {
        let (id, client) = (format!("a{n}"), format!("c{n}"));
        let data = json!({"appointment_id": &id, "client_id": &client, "starts_at": "2026-02-20T09:00:00Z"});
        let mut placed = event(&format!("b{n}"), "appointment.booked", data);
        placed["time"] = json!("2026-02-10T09:00:00Z");
        let kind = if n < 24 { "appointment.missed" } else { "appointment.attended" };
        let mut went = event(&format!("o{n}"), kind, json!({"appointment_id": &id, "client_id": &client}));
        went["time"] = json!("2026-02-20T10:00:00Z");
        instance.fold(&[placed, went]).await;
    }
    let shown = instance.get(MODEL).await.body;
    assert_eq!(shown["reliability"].as_array().unwrap().len(), 10);
    assert!(shown["calibration"]["later"]["intercept"].as_f64().unwrap() > 0.1, "{}", shown["calibration"]);
    assert_eq!(shown["calibration"]["same_day"]["visits"], json!(0.0));
    let scored = considered(&instance, 0.0).await;
    assert!(effect(&scored, "CALIBRATION").unwrap() > 0.1, "{scored}");
    // A booked visit is scored by the same model, and so is the client's list.
    instance.fold(&[booked("b", "c", "a", "2026-03-29T09:30:00")]).await;
    let booked = instance.get("/v1/risk/appointments/a").await.body;
    assert_eq!(booked["model"]["id"], "no-show-trained");
    let agenda = instance.get("/v1/agenda?from=2026-03-20T00:00:00Z&to=2026-04-01T00:00:00Z").await.body;
    assert_eq!(agenda["visits"][0]["score"], booked["score"], "{agenda}");
}
