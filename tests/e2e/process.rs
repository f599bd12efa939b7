//! A process of the binary: started, called over HTTP, stopped or killed; its messages are shown when a test fails.

use crate::deployment::Deployment;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Arguments of a process that folds and announces, without an API.
pub const WORKER: [&str; 2] = ["--roles", "views,reminders"];
/// Longer than anything here may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// Interval between two checks of a condition.
const LOOK: Duration = Duration::from_millis(10);

/// Repeats a check until it has a result.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} until {what}");
        sleep(LOOK).await;
    }
}

/// A running process; killed when it is dropped.
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts a command; its output goes to files of the deployment's scratch directory.
    pub fn start(deployment: &Deployment, mut command: Command) -> Self {
        let name = format!("{:?}", command.get_args().collect::<Vec<_>>());
        let (stdout, stderr) = (deployment.scratch_file("stdout"), deployment.scratch_file("stderr"));
        let file = |path: &PathBuf| Stdio::from(File::create(path).expect("a file in the scratch directory"));
        let command = command.stdin(Stdio::null()).stdout(file(&stdout)).stderr(file(&stderr));
        Self { name, child: command.spawn().expect("the binary starts"), stdout, stderr }
    }

    /// Its output so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).expect("readable")
    }

    /// Its messages so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).expect("readable")
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Waits for its end.
    pub async fn end(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        until(&what, async || self.ended()).await
    }

    /// Kills it as a power loss would, without a chance to write anything.
    pub fn kill(&mut self) {
        assert!(self.kill_if_running(), "{} ended by itself: {}", self.name, self.stderr());
    }

    /// The same for a process that may end meanwhile, in which case it must succeed; returns whether it was killed.
    pub fn kill_if_running(&mut self) -> bool {
        self.child.kill().expect("it is our child");
        let status = self.child.wait().expect("it is our child");
        assert!(status.signal() == Some(9) || status.success(), "{}: {}", self.name, self.stderr());
        status.signal() == Some(9)
    }

    /// Requests its end, and expects a clean exit.
    pub async fn stop(mut self) {
        self.signal("TERM");
        let status = self.end().await;
        assert_eq!(status.code(), Some(0), "{}: {}", self.name, self.stderr());
    }

    /// Sends a signal through the shell, which has `kill` built in.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", self.child.id())).status();
        assert!(sent.expect("a shell").success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- stderr of {}\n{}", self.name, self.stderr());
        }
    }
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    /// The body of a successful answer.
    pub fn good(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }
}

/// A process that serves.
pub struct Service {
    pub process: Process,
    pub url: String,
    /// The address of the operators' routes.
    pub ops_url: String,
    client: reqwest::Client,
}

impl Service {
    /// Starts `serve` with further arguments, without waiting for it.
    pub fn start(deployment: &Deployment, arguments: &[&str]) -> Self {
        Self::at(deployment, free_port(), arguments)
    }

    /// The same on a given port.
    pub fn at(deployment: &Deployment, port: u16, arguments: &[&str]) -> Self {
        let address = format!("127.0.0.1:{port}");
        let ops_address = format!("127.0.0.1:{}", free_port());
        let mut command = deployment.command(&["serve", "--listen", &address, "--ops-listen", &ops_address]);
        command.args(arguments);
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let (url, ops_url) = (format!("http://{address}"), format!("http://{ops_address}"));
        Self { process: Process::start(deployment, command), url, ops_url, client }
    }

    /// Starts `serve`, and waits until it is ready.
    pub async fn ready(deployment: &Deployment, arguments: &[&str]) -> Self {
        let mut service = Self::start(deployment, arguments);
        service.until_ready().await;
        service
    }

    /// Waits until its views are at the end of the log.
    pub async fn until_ready(&mut self) {
        until("the service is ready", async || {
            assert_eq!(self.process.ended(), None, "it ended: {}", self.process.stderr());
            let answer = self.ask(Method::GET, "/readyz").send().await.ok()?;
            (answer.status() == 200).then_some(())
        })
        .await;
    }

    /// A request to it.
    pub fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// Its answer to a request.
    pub async fn answer(&self, request: RequestBuilder) -> Answer {
        let response = request.timeout(PATIENCE).send().await.expect("an answer");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
    }

    /// Its answer to a GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.answer(self.ask(Method::GET, path)).await
    }

    /// Its answer to a GET of an operator.
    pub async fn ops(&self, path: &str) -> Answer {
        self.answer(self.client.get(format!("{}{path}", self.ops_url))).await
    }

    /// Its answer to a POST.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.answer(self.ask(Method::POST, path).json(body)).await
    }

    /// Appends events, and waits until the views contain them.
    pub async fn fold(&self, events: &[Value]) {
        let request = self.ask(Method::POST, "/v1/events").header("prefer", "wait=30");
        let request = request.header("content-type", "application/cloudevents-batch+json");
        let body = self.answer(request.body(Value::from(events).to_string())).await.good();
        assert_eq!(body["folded"], true, "{body}");
    }
}

/// A free port below the ephemeral range: no outgoing connection takes it while a service is down.
pub fn free_port() -> u16 {
    let candidates = std::iter::repeat_with(|| 11_000 + (uuid::Uuid::new_v4().as_u128() % 21_000) as u16);
    let mut free = candidates.take(1_000).filter(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("a free port")
}
