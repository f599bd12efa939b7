//! Tests of the protocol: the shape of events, cancellation, slots, refusals.

use super::*;
use serde_json::json;

/// Counts without end, or up to a number.
#[derive(Clone)]
struct Counting {
    ended: mpsc::Sender<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CountingQuery {
    to: Option<u64>,
}

#[async_trait]
impl Job for Counting {
    const NAME: &'static str = "count";
    const OPERATION: &'static str = "count";
    const ONE_AT_A_TIME: bool = true;
    type Query = CountingQuery;
    type Item = u64;
    type Report = u64;

    fn check(&self, query: &CountingQuery) -> Result<(), JobRefusal> {
        if query.to == Some(0) { Err(JobRefusal::NotFound("nothing to count".into())) } else { Ok(()) }
    }

    async fn run(&self, query: CountingQuery, context: &JobContext<u64>) -> Result<u64, Error> {
        let doubled = context.map(|n: u64| n * 2);
        let work = async {
            context.begin("numbers", query.to.unwrap_or(0)).await?;
            for n in (1..).take_while(|n| query.to.is_none_or(|to| *n <= to)) {
                context.advance(1).await?;
                if n % 2 == 0 {
                    doubled.item(n).await?;
                }
            }
            query.to.filter(|to| *to != 13).ok_or_else(|| Error::reject("count", "13 is not counted"))
        };
        let counted = work.await;
        let _ = self.ended.send(counted.as_ref().err().map(ToString::to_string).unwrap_or_default()).await;
        counted
    }
}

fn counting() -> (Jobs, mpsc::Receiver<String>) {
    let (ended, receiver) = mpsc::channel(8);
    (Jobs::default().with(Counting { ended }), receiver)
}

async fn lines(lines: JobLines) -> Vec<Value> {
    lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect().await
}

#[tokio::test]
async fn every_event_is_a_line_of_one_shape() {
    let (jobs, _ended) = counting();
    let progress = |done: u64| json!({"progress": {"what": "numbers", "done": done, "total": 2}});
    let expected = [progress(0), progress(1), progress(2), json!({"item": 4}), json!({"done": 2})];
    assert_eq!(lines(jobs.start("count", json!({"to": 2})).unwrap()).await, expected);
    let failed = lines(jobs.start("count", json!({"to": 13})).unwrap()).await.pop().unwrap();
    let detail = failed["failed"]["detail"].as_str().unwrap();
    assert!(detail.contains("13 is not counted"), "{failed}");
}

#[tokio::test]
async fn a_job_ends_when_its_client_disconnects() {
    let (ended, mut receiver) = mpsc::channel(1);
    let mut events = start(Counting { ended }, CountingQuery { to: None });
    assert!(matches!(events.recv().await, Some(JobEvent::Progress(_))));
    drop(events);
    let error = receiver.recv().await.unwrap();
    assert!(error.contains("the client disconnected"), "{error}");
}

#[tokio::test]
async fn a_slot_is_held_until_the_job_has_ended() {
    let (jobs, mut ended) = counting();
    let first = jobs.start("count", json!({})).unwrap();
    let second = jobs.clone().start("count", json!({"to": 1}));
    assert!(matches!(second, Err(JobRefusal::Busy(detail)) if detail.contains("only one can run at a time")));
    drop(first);
    ended.recv().await.unwrap();
    // The task may still be on its way from the last event to its end.
    while jobs.start("count", json!({"to": 1})).is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_job_that_cannot_begin_is_refused_before_it_begins() {
    let (jobs, mut ended) = counting();
    let refusal = |name: &str, query: Value| jobs.start(name, query).err().unwrap();
    assert_eq!(refusal("dance", json!({})), JobRefusal::NotFound("jobs are count".into()));
    assert_eq!(refusal("count", json!({"to": 0})), JobRefusal::NotFound("nothing to count".into()));
    assert!(matches!(refusal("count", json!({"up_to": 1})), JobRefusal::Malformed(_)));
    assert!(ended.try_recv().is_err());
}

#[tokio::test]
async fn a_thread_that_must_not_wait_drops_progress_and_notices_the_end() {
    let (sender, mut receiver) = mpsc::channel(1);
    let context = JobContext::<u64>::of_test(sender);
    let progress = |done| JobProgress { what: "bytes".into(), done, total: 9 };
    assert!(context.report_now(progress(1)).is_ok() && context.report_now(progress(2)).is_ok());
    assert!(!context.advance_now(5).unwrap(), "the channel is full");
    assert_eq!(receiver.recv().await, Some(JobEvent::Progress(progress(1))));
    assert!(context.advance_now(5).unwrap());
    let counted = JobProgress { done: 5, ..JobProgress::default() };
    assert_eq!(receiver.recv().await, Some(JobEvent::Progress(counted)), "once, although it was tried twice");
    drop(receiver);
    assert!(context.report_now(progress(3)).is_err() && context.advance_now(1).is_err());
}
