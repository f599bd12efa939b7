//! Policies: what determines decisions for a tenant, effective from one request to the next.

use crate::instance::{Answer, Instance, World, login};
use foretell_domain::score::login::LoginPolicy;
use foretell_events::Topic;
use foretell_events::record::NewRecord;
use foretell_ports::log::Log;
use foretell_service::http::Parts;
use foretell_service::policies::Policies;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const LOGIN: &str = "/v1/policies/login";

/// Publishes a document in JSON, as the replacement of a version if one is named.
async fn put(instance: &Instance, document: &Value, if_match: Option<&str>) -> (Answer, Option<String>) {
    let request = instance.request(Method::PUT, LOGIN).json(document);
    let request = if_match.iter().fold(request, |request, tag| request.header("if-match", *tag));
    let response = request.send().await.unwrap();
    let tag = response.headers().get("etag").map(|tag| tag.to_str().unwrap().to_owned());
    (Answer::of(response).await, tag)
}

async fn scored(instance: &Instance) -> Value {
    let scored = json!({"user_id": "u", "ip": "203.0.113.9", "device_id": "phone", "country": "BR"});
    instance.post("/v1/risk/logins", &scored).await.body
}

#[tokio::test]
async fn a_policy_decides_as_soon_as_it_is_answered_and_answers_name_its_version() {
    let instance = Instance::start().await;
    instance.fold(&[login("e", "u")]).await;
    let before = scored(&instance).await;
    let settings = instance.get(LOGIN).await;
    assert_eq!((settings.status, &settings.body["version"]), (200, &before["policy"]["version"]));
    assert_eq!((&settings.body["document"], &settings.body["published_at"]), (&json!({}), &Value::Null));
    assert_eq!(settings.body["effective"], serde_json::to_value(LoginPolicy::default()).unwrap());
    for (version, decision) in [(1, "deny"), (2, "allow")] {
        let rule = json!({"code": "PHONES", "when": "device_id == 'phone'", "decision": decision});
        let (answer, tag) = put(&instance, &json!({"rules": [rule]}), None).await;
        assert_eq!((answer.status, tag), (200, Some(format!("\"{version}\""))), "{:?}", answer.body);
        assert_eq!(answer.body["effective"]["rules"][0]["code"], "PHONES");
        let after = scored(&instance).await;
        assert_eq!(
            (&after["decision"], &after["policy"]),
            (&json!(decision), &json!({"id": "login", "version": version.to_string()}))
        );
        assert_eq!(after["reasons"].as_array().unwrap().last().unwrap()["code"], "PHONES");
    }
    let versions = instance.get("/v1/policies/login/versions").await.body;
    let numbers: Vec<_> =
        versions["versions"].as_array().unwrap().iter().map(|v| v["version"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [2, 1]);
}

#[tokio::test]
async fn a_policy_is_only_replaced_by_a_caller_that_has_seen_it() {
    let instance = Instance::start().await;
    let settings = instance.get(LOGIN).await.body["version"].as_str().unwrap().to_owned();
    let strict = json!({"challenge_at": 0.1});
    assert_eq!(put(&instance, &strict, Some("\"7\"")).await.0.problem(), (412, "PRECONDITION_FAILED"));
    assert_eq!(put(&instance, &strict, Some(&format!("\"{settings}\""))).await.0.status, 200);
    assert_eq!(
        put(&instance, &strict, Some(&format!("\"{settings}\""))).await.0.problem(),
        (412, "PRECONDITION_FAILED")
    );
    let stricter = json!({"challenge_at": 0.05});
    assert_eq!(put(&instance, &stricter, Some("\"1\"")).await.1, Some("\"2\"".into()));
    assert_eq!(put(&instance, &strict, Some("*")).await.1, Some("\"3\"".into()));
    assert_eq!(put(&instance, &strict, Some("3")).await.0.problem(), (400, "MALFORMED_REQUEST"));
    // All at once, with the version that all have seen: one wins.
    let puts = (0..8).map(|n| {
        let (instance, document) = (&instance, json!({"challenge_at": 0.2 + f64::from(n) / 100.0}));
        async move { put(instance, &document, Some("\"3\"")).await.0.status }
    });
    let mut statuses = futures::future::join_all(puts).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);
}

/// Sends a request with these headers, and a document if it is a `PUT`.
async fn conditional(instance: &Instance, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = instance.request(method.clone(), path);
    let request = if method == Method::PUT { request.json(&json!({})) } else { request };
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn preconditions_decide_what_is_read_and_what_is_replaced() {
    for path in [LOGIN, "/v1/policies/reminders", "/v1/models/no-show"] {
        let instance = Instance::start().await;
        let send = async |method, headers: &[(&str, &str)]| conditional(&instance, method, path, headers).await;
        let put = async |headers: &[(&str, &str)]| send(Method::PUT, headers).await.status;
        assert_eq!(send(Method::GET, &[]).await.header("last-modified"), "", "nothing is published");
        assert_eq!(put(&[("if-match", "*")]).await, 412, "{path}: there is nothing to replace");
        assert_eq!(put(&[("if-none-match", "*")]).await, 200, "{path}: the first");
        assert_eq!(put(&[("if-none-match", "*")]).await, 412, "{path}: not over a published policy");
        let answer = send(Method::GET, &[]).await;
        assert_eq!(answer.header("etag"), "\"1\"", "{path}");
        let at = answer.header("last-modified").to_owned();
        assert_eq!(at, "Sun, 01 Mar 2026 10:00:00 GMT");
        for (headers, status) in [
            (&[("if-match", "\"zzz\", \"1\"")][..], 200),
            (&[("if-match", "\"zzz\""), ("if-match", "\"1\"")], 200),
            (&[("if-match", "W/\"1\"")], 412),
            (&[("if-match", "\"zzz\"")], 412),
            (&[("if-none-match", "\"zzz\", W/\"1\"")], 412),
            (&[("if-none-match", "\"zzz\"")], 200),
            (&[("if-unmodified-since", &at)], 200),
            (&[("if-unmodified-since", "Sun, 01 Mar 2026 09:59:59 GMT")], 412),
            (&[("if-unmodified-since", "then")], 200),
            (&[("if-match", "\"1\""), ("if-unmodified-since", "Sun, 01 Mar 2026 09:59:59 GMT")], 200),
            (&[("if-none-match", "one")], 400),
        ] {
            assert_eq!(put(headers).await, status, "PUT {path} {headers:?}");
        }
        for method in [Method::GET, Method::HEAD] {
            for (headers, status) in [
                (&[("if-none-match", "\"zzz\", \"1\"")][..], 304),
                (&[("if-none-match", "W/\"1\"")], 304),
                (&[("if-none-match", "*")], 304),
                (&[("if-none-match", "\"2\"")], 200),
                (&[("if-modified-since", &at)], 304),
                (&[("if-modified-since", "Sun, 01 Mar 2026 09:59:59 GMT")], 200),
                (&[("if-none-match", "\"2\""), ("if-modified-since", &at)], 200),
                (&[("if-match", "\"2\"")], 412),
                (&[("if-match", "1")], 400),
            ] {
                let answer = send(method.clone(), headers).await;
                assert_eq!(answer.status, status, "{method} {path} {headers:?}");
                if status == 304 {
                    assert_eq!((answer.header("etag"), answer.header("last-modified")), ("\"1\"", at.as_str()));
                    assert_eq!(answer.body, json!(""));
                }
            }
        }
    }
}

#[tokio::test]
async fn a_document_that_returns_is_published_again_and_one_that_holds_is_not() {
    let instance = Instance::start().await;
    let (strict, lax) = (json!({"challenge_at": 0.1}), json!({"challenge_at": 0.4}));
    for (document, version) in [(&strict, 1), (&strict, 1), (&lax, 2), (&strict, 3), (&strict, 3), (&lax, 4)] {
        let (answer, tag) = put(&instance, document, None).await;
        assert_eq!((answer.status, tag), (200, Some(format!("\"{version}\""))), "{document}");
        assert_eq!(&answer.body["document"], document);
    }
    let records =
        (0..crate::instance::PARTITIONS).map(|partition| instance.world.log.records(Topic::Policies, partition));
    assert_eq!(records.filter_map(Result::ok).flatten().count(), 4, "what holds is not written again");
}

#[tokio::test]
async fn a_publication_under_an_idempotency_key_happens_once() {
    let instance = Instance::start().await;
    let put = async |path: &str, key: &str, document: Value| {
        let request = instance.request(Method::PUT, path).header("idempotency-key", key).json(&document);
        let answer = Answer::of(request.send().await.unwrap()).await;
        (answer.status, answer.header("etag").to_owned(), answer)
    };
    let (strict, lax) = (json!({"challenge_at": 0.1}), json!({"challenge_at": 0.4}));
    assert_eq!(put(LOGIN, "one", strict.clone()).await.1, "\"1\"");
    assert_eq!(put(LOGIN, "two", lax.clone()).await.1, "\"2\"");
    let (status, tag, answer) = put(LOGIN, "one", strict.clone()).await;
    assert_eq!((status, tag.as_str(), &answer.body["document"]), (200, "\"2\"", &lax), "what came since holds");
    assert_eq!(put(LOGIN, "one", lax.clone()).await.2.problem(), (422, "IDEMPOTENCY_KEY_REUSED"));
    // It replaced the version itself, so the retry finds that version replaced.
    let retried = instance.request(Method::PUT, LOGIN).header("idempotency-key", "two").header("if-match", "\"1\"");
    assert_eq!(Answer::of(retried.json(&lax).send().await.unwrap()).await.status, 200);
    assert_eq!(put(LOGIN, "three", strict.clone()).await.1, "\"3\"", "another key is another request");
    assert_eq!(put("/v1/policies/reminders", "one", json!({"group_same_day": false})).await.1, "\"1\"");
    assert_eq!(put("/v1/models/no-show", "one", json!({})).await.1, "\"1\"", "the key is the policy's");
    assert_eq!(put(LOGIN, "", strict).await.0, 400);
}

#[tokio::test]
async fn a_publication_under_a_key_is_remembered_also_where_its_document_holds_already() {
    let instance = Instance::start().await;
    let keyed = async |document: &Value| {
        let request = instance.request(Method::PUT, LOGIN).header("idempotency-key", "k").json(document);
        Answer::of(request.send().await.unwrap()).await
    };
    let (strict, lax, other) =
        (json!({"challenge_at": 0.1}), json!({"challenge_at": 0.4}), json!({"challenge_at": 0.5}));
    put(&instance, &strict, None).await;
    assert_eq!(keyed(&strict).await.header("etag"), "\"2\"", "its version remembers the key");
    assert_eq!(keyed(&strict).await.header("etag"), "\"2\"", "once");
    put(&instance, &lax, None).await;
    let retried = keyed(&strict).await;
    assert_eq!((retried.status, &retried.body["document"]), (200, &lax), "what came since holds");
    assert_eq!(keyed(&other).await.problem(), (422, "IDEMPOTENCY_KEY_REUSED"));
}

#[tokio::test]
async fn a_date_protects_from_losing_a_change_of_the_same_second() {
    let instance = Instance::start().await;
    let since = async |method: Method, name: &str, date: &str| {
        conditional(&instance, method, LOGIN, &[(name, date)]).await.status
    };
    put(&instance, &json!({"challenge_at": 0.1}), None).await;
    let seen = instance.get(LOGIN).await.header("last-modified").to_owned();
    // The clock does not move.
    put(&instance, &json!({"challenge_at": 0.4}), None).await;
    assert_eq!(instance.get(LOGIN).await.header("last-modified"), seen);
    assert_eq!(since(Method::PUT, "if-unmodified-since", &seen).await, 412);
    assert_eq!(since(Method::GET, "if-modified-since", &seen).await, 200, "the caller has the one before");
    assert_eq!(since(Method::GET, "if-modified-since", "Sun, 01 Mar 2026 10:00:01 GMT").await, 304);
    assert_eq!(since(Method::PUT, "if-unmodified-since", "Sun, 01 Mar 2026 10:00:01 GMT").await, 200);
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_with_the_place_and_the_policy_before_it_stays() {
    let instance = Instance::start().await;
    assert_eq!(put(&instance, &json!({"challenge_at": 0.3}), None).await.0.status, 200);
    let rule = |when: &str| json!({"rules": [{"code": "OURS", "when": when, "factor": 2.0}]});
    for (document, pointer, detail) in [
        (json!({"challenge_at": 2.0}), "/challenge_at", "from 0 to 1"),
        (json!({"chalenge_at": 0.2}), "/chalenge_at", "unknown field"),
        (rule("country =="), "/rules/0", "syntax"),
        (rule("contry == 'IE'"), "/rules/0", "did you mean country?"),
        (rule(&"true || ".repeat(12_000)), "", "bytes"),
        (rule("signals.exists(a, signals.exists(b, a == b))"), "/rules/0", "loops cannot be nested"),
        (json!([1]), "", "table"),
    ] {
        let (answer, _) = put(&instance, &document, None).await;
        assert_eq!(answer.problem(), (422, "VALIDATION_FAILED"), "{document:.80}");
        let error = &answer.body["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&json!(pointer), &json!("INVALID_POLICY")), "{error}");
        assert!(error["detail"].as_str().unwrap().contains(detail), "{error}");
    }
    let send = async |media: &str, body: Vec<u8>| {
        let request = instance.request(Method::PUT, LOGIN).header("content-type", media).body(body);
        Answer::of(request.send().await.unwrap()).await
    };
    assert_eq!(send("application/json", b"{".to_vec()).await.problem(), (400, "MALFORMED_JSON"));
    assert_eq!(send("application/toml", b"challenge_at = ".to_vec()).await.problem(), (400, "MALFORMED_TOML"));
    assert_eq!(send("application/toml", vec![0xff, 0xfe]).await.problem(), (400, "MALFORMED_TOML"));
    assert_eq!(send("text/plain", b"{}".to_vec()).await.problem(), (415, "UNSUPPORTED_MEDIA_TYPE"));
    assert_eq!(instance.get("/v1/policies/logins").await.problem(), (404, "POLICY_NOT_FOUND"));
    let kept = instance.get(LOGIN).await.body;
    assert_eq!((&kept["version"], &kept["document"]), (&json!("1"), &json!({"challenge_at": 0.3})));
    let toml = send("application/toml", b"challenge_at = 0.25\n[signals.new_device]\nfactor = 4.0\n".to_vec()).await;
    assert_eq!((toml.status, &toml.body["effective"]["signals"]["new_device"]["factor"]), (200, &json!(4.0)));
}

/// A few kilobytes of nested tables would end a process with a recursive parser.
#[tokio::test]
async fn deep_documents_are_refused_on_every_route_and_the_process_lives() {
    let instance = Instance::start().await;
    let put = async |path: &str, media: &str, body: String| {
        let request = instance.request(Method::PUT, path).header("content-type", media).body(body);
        Answer::of(request.send().await.unwrap()).await
    };
    let nested = |levels: usize, keys: usize| {
        let key = vec!["a"; keys].join(".");
        (0..levels).fold("1".to_owned(), |inner, _| format!("{{{key} = {inner}}}"))
    };
    for path in [LOGIN, "/v1/policies/reminders", "/v1/models/no-show"] {
        for levels in (1..80).step_by(13) {
            for keys in (1..80).step_by(13) {
                let answer = put(path, "application/toml", format!("a = {}", nested(levels, keys))).await;
                let expected = if levels * keys < 32 { (422, "VALIDATION_FAILED") } else { (400, "MALFORMED_TOML") };
                assert_eq!(answer.problem(), expected, "{path}: {levels} by {keys}: {}", answer.body);
            }
        }
        for levels in [100, 127, 128, 10_000] {
            let json = format!("{{\"a\": {}{}}}", "[".repeat(levels), "]".repeat(levels));
            let answer = put(path, "application/json", json).await;
            let expected = if levels < 127 { (422, "VALIDATION_FAILED") } else { (400, "MALFORMED_JSON") };
            assert_eq!(answer.problem(), expected, "{path}: {levels}: {}", answer.body);
        }
    }
    assert_eq!(instance.get(LOGIN).await.status, 200);
}

#[tokio::test]
async fn documents_and_events_of_windows_tools_are_read() {
    let instance = Instance::start().await;
    let send = async |method: Method, path: &str, media: &str, body: Vec<u8>| {
        let request = instance.request(method, path).header("content-type", media).body(body);
        Answer::of(request.send().await.unwrap()).await
    };
    for (media, text, malformed) in [
        ("application/toml", "\u{feff}challenge_at = 0.25\r\n", "MALFORMED_TOML"),
        ("application/json", "\u{feff}{\"challenge_at\": 0.25}\r\n", "MALFORMED_JSON"),
    ] {
        let answer = send(Method::PUT, LOGIN, media, text.into()).await;
        assert_eq!((answer.status, &answer.body["document"]), (200, &json!({"challenge_at": 0.25})), "{media}");
        let utf16 = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let answer = send(Method::PUT, LOGIN, media, utf16).await;
        assert_eq!(answer.problem(), (400, malformed));
        assert!(answer.body["detail"].as_str().unwrap().contains("UTF-16"), "{}", answer.body);
    }
    let event = format!("\u{feff}{}\r\n", login("e", "u"));
    let answer = send(Method::POST, "/v1/events", "application/cloudevents+json", event.into()).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
}

/// 0.889 looks like a high risk but is `medium`: the thresholds in the same answer show why, also with a tenant's
/// policy.
#[tokio::test]
async fn an_answer_names_the_thresholds_that_its_level_was_decided_by() {
    let instance = Instance::start().await;
    instance.fold(&[login("e", "u")]).await;
    let by_default = LoginPolicy::default();
    for (document, (challenge_at, deny_at)) in [
        (json!({}), (by_default.challenge_at, by_default.deny_at)),
        (json!({"challenge_at": 0.999_99}), (0.999_99, by_default.deny_at)),
        (json!({"deny_at": 0.5}), (by_default.challenge_at, 0.5)),
    ] {
        assert_eq!(put(&instance, &document, None).await.0.status, 200);
        let answer = scored(&instance).await;
        assert_eq!(answer["thresholds"], json!({"challenge_at": challenge_at, "deny_at": deny_at}), "{document}");
        let score = answer["score"].as_f64().unwrap();
        let expected = match score {
            score if score >= deny_at => ("high", "deny"),
            score if score >= challenge_at => ("medium", "challenge"),
            _ => ("low", "allow"),
        };
        assert_eq!((answer["level"].as_str(), answer["decision"].as_str()), (Some(expected.0), Some(expected.1)));
        let found = instance.get(&format!("/v1/decisions/{}", answer["id"].as_str().unwrap())).await.body;
        assert_eq!(found["thresholds"], answer["thresholds"], "they are kept with the decision");
    }
    let unscored = json!({"user_id": "nobody", "ip": "203.0.113.9"});
    let unscored = instance.post("/v1/risk/logins", &unscored).await.body;
    assert_eq!((&unscored["score"], &unscored["thresholds"]["deny_at"]), (&Value::Null, &json!(0.5)));
}

/// A division by zero is reported, and changes nothing.
#[tokio::test]
async fn a_rule_that_fails_does_not_hold_and_the_answer_says_so() {
    let instance = Instance::start().await;
    instance.fold(&[login("e", "u")]).await;
    let before = scored(&instance).await;
    let rule = json!({"code": "OURS", "when": "failures_recent / (successes - 1) > 0", "decision": "deny"});
    assert_eq!(put(&instance, &json!({"rules": [rule]}), None).await.0.status, 200);
    let after = scored(&instance).await;
    assert_eq!((&after["decision"], &after["score"]), (&before["decision"], &before["score"]));
    assert_eq!(after["warnings"], json!(["RULE_FAILED"]));
}

#[tokio::test]
async fn tenants_have_policies_of_their_own() {
    let instance = Instance::start().await;
    assert_eq!(put(&instance, &json!({"challenge_at": 0.3}), None).await.0.status, 200);
    let other = instance.request(Method::GET, LOGIN).header("foretell-tenant", "acme").send().await.unwrap();
    assert_eq!(Answer::of(other).await.body["document"], json!({}));
}

/// A document that another program has written to the topic, for example one of a later version.
#[tokio::test]
async fn a_published_document_that_cannot_be_used_leaves_the_one_before_it_in_force() {
    let instance = Instance::start().await;
    assert_eq!(put(&instance, &json!({"challenge_at": 0.3}), None).await.0.status, 200);
    let data = json!({"policy": "login", "version": 2, "document": {"new_setting": 1},
        "earlier": [{"version": 1, "published_at": "2026-03-01T10:00:00Z", "document": {"challenge_at": 0.3}}]});
    let event = json!({"specversion": "1.0", "id": "later", "source": "elsewhere", "type": "foretell.policy.published",
        "time": "2026-03-01T10:00:00Z", "data": data});
    let record = NewRecord {
        topic: Topic::Policies,
        key: Some("default:login".into()),
        value: event.to_string().into(),
        headers: vec![("content-type".into(), "application/cloudevents+json".into())],
    };
    let positions = instance.world.log.append(vec![record]).await.unwrap();
    // Another process, which starts with it.
    let parts = instance.world.parts();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    assert!(parts.progress.wait(&positions, deadline).await);
    let active = Policies::new(&parts.rows, Default::default(), 1_000).login.get("default", deadline).await;
    assert_eq!(
        (active.version.as_str(), active.policy.challenge_at, active.warning),
        ("1", 0.3, Some("POLICY_INVALID"))
    );
    // The answer shows the policy in force, and the version that a change must name.
    let shown = instance.request(Method::GET, LOGIN).send().await.unwrap();
    assert_eq!(shown.headers()["etag"], "\"2\"");
    let shown = Answer::of(shown).await.body;
    assert_eq!((&shown["version"], &shown["warnings"]), (&json!("1"), &json!(["POLICY_INVALID"])));
    assert_eq!(put(&instance, &json!({"challenge_at": 0.4}), Some("\"1\"")).await.0.status, 412);
    assert_eq!(put(&instance, &json!({"challenge_at": 0.4}), Some("\"2\"")).await.1, Some("\"3\"".into()));
}

/// Scores are requested continuously while the policy changes twenty times: none fails, and none is without a policy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_under_load_loses_no_request() {
    let world = World::new();
    let parts = world.parts();
    // Read again at each request, so that many requests arrive while it is being read.
    let policies = Policies::new(&parts.rows, Default::default(), 0);
    let instance = Arc::new(Instance::with(world, Parts { policies, ..parts }).await);
    instance.fold(&[login("e", "u")]).await;
    let done = Arc::new(AtomicBool::new(false));
    let askers = (0..4).map(|_| {
        let (instance, done) = (instance.clone(), done.clone());
        tokio::spawn(async move {
            let mut versions = Vec::new();
            while !done.load(Ordering::Acquire) {
                let answer = scored(&instance).await;
                assert_eq!(answer["warnings"], json!([]), "{answer}");
                versions.push(answer["policy"]["version"].as_str().unwrap().parse::<u32>().unwrap_or(0));
            }
            versions
        })
    });
    let askers: Vec<_> = askers.collect();
    for version in 1..=20 {
        let (answer, tag) = put(&instance, &json!({"challenge_at": 0.1 + f64::from(version) / 100.0}), None).await;
        assert_eq!((answer.status, tag), (200, Some(format!("\"{version}\""))));
    }
    let last = scored(&instance).await;
    assert_eq!(last["policy"]["version"], "20");
    done.store(true, Ordering::Release);
    for versions in futures::future::join_all(askers).await {
        let versions = versions.unwrap();
        assert!(versions.len() > 20 && versions.iter().all(|version| *version <= 20), "{}", versions.len());
    }
}
