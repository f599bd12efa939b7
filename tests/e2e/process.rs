//! A process of the binary: started, asked over HTTP, stopped or killed; its messages are shown when a test fails.

use crate::deployment::Deployment;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Arguments of a process that folds and announces, and answers nobody.
pub const WORKER: [&str; 2] = ["--roles", "views,reminders"];
/// Longer than anything here may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// Between two looks at something that is awaited.
const LOOK: Duration = Duration::from_millis(10);

/// Asks until there is an answer.
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

    /// What it has printed up to now.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).expect("readable")
    }

    /// What it has said up to now.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).expect("readable")
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Waits for its end.
    pub async fn end(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        until(&what, async || self.ended()).await
    }

    /// Kills it as a power loss would, with no chance to say anything.
    pub fn kill(&mut self) {
        assert!(self.kill_if_running(), "{} ended by itself: {}", self.name, self.stderr());
    }

    /// The same for one that may come to its end meanwhile, and then in order; whether it was killed.
    pub fn kill_if_running(&mut self) -> bool {
        self.child.kill().expect("it is our child");
        let status = self.child.wait().expect("it is our child");
        assert!(status.signal() == Some(9) || status.success(), "{}: {}", self.name, self.stderr());
        status.signal() == Some(9)
    }

    /// Asks it to end, and expects that it does so in order.
    pub async fn stop(mut self) {
        self.signal("TERM");
        let status = self.end().await;
        assert_eq!(status.code(), Some(0), "{}: {}", self.name, self.stderr());
    }

    /// Sends a signal; the shell has `kill` built in wherever there is a shell.
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

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    /// The body of a good answer.
    pub fn good(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }
}

/// A process that serves.
pub struct Service {
    pub process: Process,
    pub url: String,
    /// Where operators are served.
    pub ops_url: String,
    client: reqwest::Client,
}

impl Service {
    /// Starts `serve` with these further arguments; it need not answer yet.
    pub fn start(deployment: &Deployment, arguments: &[&str]) -> Self {
        Self::at(deployment, free_port(), arguments)
    }

    /// The same on a port that is known before.
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

    /// What it answers to a request.
    pub async fn answer(&self, request: RequestBuilder) -> Answer {
        let response = request.timeout(PATIENCE).send().await.expect("an answer");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        Answer { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
    }

    /// What it answers to a GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.answer(self.ask(Method::GET, path)).await
    }

    /// What it answers to an operator's GET.
    pub async fn ops(&self, path: &str) -> Answer {
        self.answer(self.client.get(format!("{}{path}", self.ops_url))).await
    }

    /// What it answers to a POST.
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

/// A port nobody listens on, below the ephemeral range: no outgoing connection takes it while a service is down.
pub fn free_port() -> u16 {
    let candidates = std::iter::repeat_with(|| 11_000 + (uuid::Uuid::new_v4().as_u128() % 21_000) as u16);
    let mut free = candidates.take(1_000).filter(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("a free port")
}
