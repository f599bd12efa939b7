//! Prints reminders from the stream of a service, each once: a line where another subscriber would send a message.
//!
//! ```sh
//! FORETELL_API_KEY=... cargo run --example sse_subscriber -- http://localhost:8080 ./state
//! ```
//!
//! **What it promises.** Every reminder is printed at least once, whenever it is killed and whenever the service is: the
//! cursor of the stream is kept behind the line, and the stream goes on from there. It is printed twice only if the
//! process ends between the line and the moment at which its id is in the file; whoever would rather lose a reminder
//! than send one twice remembers first and acts then.
//!
//! When the service says that the cursor is of a log that no longer exists (410), the stream begins anew with the oldest
//! reminder, and what was printed before is known by its id.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "lines are all that it does")]

#[path = "shared/reminder.rs"]
mod reminder;
#[path = "shared/seen.rs"]
mod seen;

use reqwest::{Client, Response, StatusCode};
use seen::Seen;
use serde_json::Value;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

/// A stream on which nothing comes for so long is broken: a service that is quiet sends a comment every 15 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Between two attempts at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, state] = arguments.as_slice() else {
        return Err("usage: sse_subscriber URL STATE_DIRECTORY".into());
    };
    std::fs::create_dir_all(state)?;
    let mut subscriber = Subscriber::open(state)?;
    let client = Client::builder().read_timeout(SILENCE_MAX).build()?;
    let mut pause = PAUSE.0;
    loop {
        let mut request = client.get(format!("{url}/v1/reminders/stream"));
        if let Ok(key) = std::env::var("FORETELL_API_KEY") {
            request = request.bearer_auth(key);
        }
        if let Some(cursor) = &subscriber.cursor {
            request = request.header("last-event-id", cursor);
        }
        match request.send().await {
            Ok(response) if response.status().is_success() => {
                pause = PAUSE.0;
                subscriber.listen(response).await?;
            }
            Ok(response) if response.status() == StatusCode::GONE => subscriber.cursor = None,
            // It is overloaded, or starting.
            Ok(response) if response.status().is_server_error() => eprintln!("waiting: {}", response.status()),
            Ok(response) => return Err(format!("{}: {}", response.status(), response.text().await?).into()),
            Err(error) => eprintln!("waiting: {error}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Where this subscriber stands, in memory and on disk.
struct Subscriber {
    seen: Seen,
    cursor: Option<String>,
    cursor_file: PathBuf,
}

impl Subscriber {
    fn open(state: &str) -> Result<Self, Box<dyn Error>> {
        let cursor_file = PathBuf::from(state).join("cursor");
        let cursor = if cursor_file.exists() { Some(std::fs::read_to_string(&cursor_file)?) } else { None };
        Ok(Self { seen: Seen::open(&PathBuf::from(state).join("seen"))?, cursor, cursor_file })
    }

    /// Reads server-sent events until the stream ends. What is not whole by then comes again.
    async fn listen(&mut self, mut response: Response) -> Result<(), Box<dyn Error>> {
        let (mut bytes, mut event) = (Vec::new(), Event::default());
        while let Ok(Some(chunk)) = response.chunk().await {
            bytes.extend_from_slice(&chunk);
            while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = bytes.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                match line.trim_end_matches(['\n', '\r']) {
                    "" => self.act(&std::mem::take(&mut event))?,
                    line => event.take(line),
                }
            }
        }
        Ok(())
    }

    /// Prints what was not printed before, remembers it, and then where the stream goes on.
    fn act(&mut self, event: &Event) -> Result<(), Box<dyn Error>> {
        // Without data there is nothing but a cursor: events of other tenants were passed.
        if !event.data.is_empty() {
            let cloud_event: Value = serde_json::from_str(&event.data)?;
            let id = cloud_event["id"].as_str().ok_or("an event without an id")?;
            if !self.seen.contains(id)
                && let Some(line) = reminder::line(&event.kind, &cloud_event["data"])
            {
                println!("{line}");
                self.seen.insert(id)?;
            }
        }
        if let Some(id) = &event.id {
            seen::replace(&self.cursor_file, id)?;
            self.cursor = Some(id.clone());
        }
        Ok(())
    }
}

/// A server-sent event, as far as it was read.
#[derive(Default)]
struct Event {
    kind: String,
    data: String,
    id: Option<String>,
}

impl Event {
    fn take(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.kind = value.to_owned(),
            // An event of Foretell has one line of data; others may have more.
            "data" if self.data.is_empty() => value.clone_into(&mut self.data),
            "data" => self.data = format!("{}\n{value}", self.data),
            "id" => self.id = Some(value.to_owned()),
            // A comment, which has no name, or something newer.
            _ => {}
        }
    }
}
