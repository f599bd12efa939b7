//! Learns from the log: reads the appointments topic, puts the events in order of time, and trains.
//!
//! A history is held in memory, all of it, so a process learns one at a time: whoever asks brings the place, and it is
//! given back when the learning has ended, not when nobody waits for it any more.

use super::{Learnt, Lesson, train};
use crate::source::EVENTS_MAX;
use foretell_domain::score::no_show::Config;
use foretell_domain::view::Limits;
use foretell_events::{Event, Topic, key};
use foretell_ports::Error;
use foretell_ports::log::Log;
use foretell_ports::log::walk::Walk;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

const OPERATION: &str = "read appointments to learn from";

/// What is to be learnt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Whose visits.
    pub tenant: String,
    /// Only what was known by this time, in milliseconds since the epoch; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
}

/// How it goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum Told {
    /// The topic is being read.
    Begun {
        /// Offsets that are to be read.
        offsets: u64,
    },
    /// More of it was read.
    Read {
        /// So many offsets.
        offsets: u64,
    },
    /// Candidates for the model are being tried.
    Tried {
        /// So many.
        candidates: usize,
        /// Of all.
        of: usize,
    },
    /// The model.
    Done(Box<Learnt>),
    /// There is none.
    Failed {
        /// Why, in a sentence.
        detail: String,
    },
}

/// What a history is learnt from besides its events.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The settings of the scores.
    pub config: Config,
    /// What the fold depends on.
    pub limits: Limits,
    /// The present, RFC 3339, for the document.
    pub now: String,
    /// From when on records are checked by the gate, as producers' are: see [`foretell_domain::pointer::Pointer`].
    pub gated_from_ms: Option<i64>,
}

/// Reads and learns in the background; what is told arrives here. When the receiver is dropped it ends with the page
/// that is read, or the candidate that is tried, and gives the place back.
pub fn spawn(log: Arc<dyn Log>, asked: Asked, settings: Settings, place: OwnedSemaphorePermit) -> mpsc::Receiver<Told> {
    let (told, listening) = mpsc::channel(64);
    tokio::spawn(async move {
        let _place = place;
        let last = match learn(log, asked, settings, &told).await {
            Ok(learnt) => Told::Done(Box::new(learnt)),
            Err(error) => Told::Failed { detail: error.to_string() },
        };
        // Nobody may be listening any more.
        let _ = told.send(last).await;
    });
    listening
}

async fn learn(
    log: Arc<dyn Log>,
    asked: Asked,
    settings: Settings,
    told: &mpsc::Sender<Told>,
) -> Result<Learnt, Error> {
    let mut events = read(log.as_ref(), &asked, settings.gated_from_ms, told).await?;
    let told = told.clone();
    let learning = tokio::task::spawn_blocking(move || {
        // Records of one key stand in the order in which they came; of one time that order stays.
        events.sort_by_key(|event| event.envelope.time_ms);
        let go_on = || if told.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let history = super::replay(events.iter(), (&settings.config, &settings.limits), &mut |_| go_on());
        drop(events);
        let (mut tenants, names) = history?.into_rows(asked.until_ms);
        let rows = tenants.remove(&asked.tenant).unwrap_or_default();
        let config = &settings.config;
        let lesson = Lesson { rows: &rows, names: &names, until_ms: asked.until_ms, config };
        // Progress is for whoever keeps up with it.
        let tell = &mut |candidates, of| {
            drop(told.try_send(Told::Tried { candidates, of }));
            go_on()
        };
        let mut model = train(lesson, tell)?;
        model.training.trained_at = Some(settings.now);
        Ok::<_, super::Refused>(Learnt { model })
    });
    let learnt = learning.await.map_err(|panic| Error::fatal("learn a model", panic))?;
    learnt.map_err(|refused| Error::reject("learn a model", refused))
}

/// The tenant's events that were there when the reading began.
async fn read(
    log: &dyn Log,
    asked: &Asked,
    gated_from_ms: Option<i64>,
    told: &mpsc::Sender<Told>,
) -> Result<Vec<Event>, Error> {
    let gone = |_| Error::reject(OPERATION, "nobody listens any more");
    let mut extents = Vec::new();
    let partitions = log.partitions(Topic::Appointments);
    for partition in 0..partitions {
        extents.push(log.extent(Topic::Appointments, partition).await?);
    }
    let offsets = extents.iter().map(|extent| (extent.end - extent.start).unsigned_abs()).sum();
    told.send(Told::Begun { offsets }).await.map_err(gone)?;
    let mine = key::of(&asked.tenant, "");
    let mut events = Vec::new();
    for (partition, extent) in (0..).zip(extents) {
        let mut walk = Walk::begin(log, Topic::Appointments, partition, extent, OPERATION).await?;
        let mut at = extent.start;
        while let Some(records) = walk.next().await? {
            let of_tenant =
                records.iter().filter(|r| r.key.as_deref().is_some_and(|key| key.starts_with(mine.as_bytes())));
            // What cannot be folded is a dead letter, and says nothing about anybody.
            events.extend(
                of_tenant.filter_map(|record| foretell_events::judge::judge(record, partitions, gated_from_ms).ok()),
            );
            if events.len() > EVENTS_MAX {
                return Err(Error::reject(OPERATION, format!("more than {EVENTS_MAX} events")));
            }
            let next = walk.next_offset();
            told.send(Told::Read { offsets: (next - at).unsigned_abs() }).await.map_err(gone)?;
            at = next;
        }
    }
    Ok(events)
}
