//! Reads reminders from the HTTP stream and prints one line for each, where a real subscriber would send a message.
//!
//! ```sh
//! FORETELL_API_KEY=... cargo run --example sse_subscriber -- http://localhost:8080 ./state
//! ```
//!
//! **Delivery guarantee.** Every reminder is printed at least once, even if this process or the service is killed: the
//! cursor of the stream is saved after the line, and the stream continues from it. A reminder is printed twice only if
//! the process ends between the line and the moment at which its id is in the file. To lose a reminder rather than send
//! it twice, store the id first.
//!
//! If the cursor belongs to a log that no longer exists (410), the stream starts again with the oldest reminder, and
//! reminders that were printed before are recognised by their ids.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is its only output")]

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

/// A stream that is silent for this long is broken: an idle service sends a comment every 15 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Pause between two attempts: initial and maximum.
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
            // The service is overloaded or starting.
            Ok(response) if response.status().is_server_error() => eprintln!("waiting: {}", response.status()),
            Ok(response) => return Err(format!("{}: {}", response.status(), response.text().await?).into()),
            Err(error) => eprintln!("waiting: {error}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// The progress of this subscriber, in memory and on disk.
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

    /// Reads server-sent events until the stream ends. An incomplete event arrives again on the next stream.
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

    /// Prints a reminder that was not printed before, stores its id, and then saves the cursor.
    fn act(&mut self, event: &Event) -> Result<(), Box<dyn Error>> {
        // Without data it only moves the cursor, past events of other tenants.
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

/// A server-sent event, as far as it has been read.
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
            // Foretell's events have one line of data; the format allows several.
            "data" if self.data.is_empty() => value.clone_into(&mut self.data),
            "data" => self.data = format!("{}\n{value}", self.data),
            "id" => self.id = Some(value.to_owned()),
            // A comment, which has no field name, or an unknown field.
            _ => {}
        }
    }
}
