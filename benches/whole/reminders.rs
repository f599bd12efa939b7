//! How planners keep up with a full agenda: visits whose reminders are due one after the other, or all at once.
//!
//! A directory is filled with bookings before a service opens it. How soon each reminder was on its topic is read from
//! the topic afterwards, by the time at which the log accepted the record. The baseline creates the same topic without
//! planning: the same announcements, appended by the owners of its partitions.

use crate::load::{Connection, request};
use crate::{Failure, figure, percentiles, process};
use foretell_events::appointment::{AppointmentFact, Booking, Channel, StartsAt};
use foretell_events::codec::{decode, encode_event, rfc3339, wall_clock};
use foretell_events::record::NewRecord;
use foretell_events::reminder::{Announcement, ReminderFact, Risk};
use foretell_events::{Envelope, Event, Fact, Topic, key, zone};
use foretell_ports::clock::{Clock, System};
use foretell_ports::log::walk::Walk;
use foretell_ports::log::{Extent, Log};
use hdrhistogram::Histogram;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Partitions of an embedded topic by default.
const PARTITIONS: u32 = 4;
/// Bookings per append.
const CHUNK: usize = 2_000;
/// Announcements per append, equal to `reminders.records_max`.
const BATCH: usize = 500;
/// Interval at which the counters of the service are read.
const LOOK: Duration = Duration::from_millis(500);
/// A service that announces nothing for this long will announce nothing more.
const PATIENCE: Duration = Duration::from_secs(300);

/// When reminders are due: evenly from one instant to another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    pub(crate) from_ms: i64,
    pub(crate) over_ms: i64,
    pub(crate) visits: usize,
}

impl Due {
    /// From `delay_seconds` after now (negative: in the past), over `minutes` minutes.
    pub(crate) fn now(visits: usize, minutes: u32, delay_seconds: i64) -> Self {
        let from_ms = System.now_ms() + delay_seconds * 1_000;
        Self { from_ms, over_ms: i64::from(minutes) * 60_000, visits }
    }

    fn start_ms(self, visit: usize) -> i64 {
        self.from_ms + self.over_ms * visit as i64 / self.visits.max(1) as i64 + DAY_MS
    }

    /// A zone where it is about noon, far from quiet hours.
    fn zone(self) -> String {
        let hour = self.from_ms.div_euclid(HOUR_MS).rem_euclid(24);
        // In these zone names, the sign is a plus west of Greenwich.
        match hour - 11 {
            ahead @ 1.. => format!("Etc/GMT+{}", ahead.min(12)),
            0 => "UTC".into(),
            behind => format!("Etc/GMT-{}", -behind),
        }
    }

    /// Booked an hour before its 24-hour step is due, and long after its 72-hour step.
    fn booked(self, visit: usize, zone: &str) -> NewRecord {
        let start_ms = self.start_ms(visit);
        let envelope = Envelope {
            id: format!("booked-{visit}"),
            source: "urn:foretell:bench".into(),
            tenant: "default".into(),
            time_ms: start_ms - DAY_MS - HOUR_MS - self.over_ms,
        };
        let booking = Booking {
            appointment_id: format!("visit-{visit}"),
            client_id: format!("client-{visit}"),
            starts_at: StartsAt::Instant { at_ms: start_ms, zone: Some(zone.to_owned()) },
            duration_minutes: Some(30),
            location_id: Some("surgery".into()),
            practitioner_id: None,
            service: None,
            booked_at_ms: None,
            attributes: Default::default(),
        };
        encode_event(&Event { envelope, fact: AppointmentFact::Booked(Box::new(booking)).into() }, &[])
    }

    /// The announcement that a planner would append.
    fn announced(self, visit: usize, zone: &str) -> NewRecord {
        let start_ms = self.start_ms(visit);
        let reminder_id = format!("{visit:032x}");
        let rules = zone::get(zone).unwrap_or(jiff::tz::TimeZone::UTC);
        let announcement = Announcement {
            reminder_id: reminder_id.clone(),
            appointment_id: format!("visit-{visit}"),
            client_id: format!("client-{visit}"),
            starts_at: rfc3339(start_ms),
            local_start: wall_clock(zone::local(start_ms, &rules)),
            time_zone: zone.to_owned(),
            step: "24h".into(),
            channels: vec![Channel::Sms],
            template: "visit-reminder".into(),
            risk: Some(Risk { score: 0.1, level: "medium".into() }),
            expires_at: rfc3339(start_ms),
            visits: Vec::new(),
        };
        let envelope = Envelope {
            id: reminder_id,
            source: "urn:foretell:bench".into(),
            tenant: "default".into(),
            time_ms: System.now_ms(),
        };
        let extensions = [("expirytime", rfc3339(start_ms)), ("causationid", format!("booked-{visit}"))];
        let extensions = extensions.map(|(name, value)| (name.to_owned(), value));
        encode_event(&Event { envelope, fact: ReminderFact::Due(Box::new(announcement)).into() }, &extensions)
    }
}

fn open(directory: &Path) -> Result<Arc<dyn Log>, Failure> {
    std::fs::create_dir_all(directory)?;
    let directory = foretell_disk::log::lock(directory)?;
    let log = foretell_disk::log::Log::open(
        &directory,
        |_| PARTITIONS,
        foretell_disk::log::Config::default(),
        Arc::new(System),
    )?;
    Ok(Arc::new(log))
}

/// Fills a directory with bookings.
pub(crate) async fn book(directory: &Path, due: Due) -> Result<(), Failure> {
    let (log, zone) = (open(directory)?, due.zone());
    let mut visits = (0..due.visits).map(|visit| due.booked(visit, &zone)).peekable();
    while visits.peek().is_some() {
        log.append(visits.by_ref().take(CHUNK).collect()).await?;
    }
    Ok(())
}

/// Appends the announcements of the visits as the owners of the partitions would, without planning them.
pub(crate) async fn bare(directory: &Path, visits: usize) -> Result<(), Failure> {
    let (log, due) = (open(directory)?, Due::now(visits, 60, 0));
    let zone = due.zone();
    let mut of: Vec<Vec<NewRecord>> = vec![Vec::new(); PARTITIONS as usize];
    for visit in 0..visits {
        let key = key::of("default", &format!("client-{visit}"));
        of[key::partition(key.as_bytes(), PARTITIONS) as usize].push(due.announced(visit, &zone));
    }
    let (before, began) = (process::seconds("self")?, Instant::now());
    let mut owners = JoinSet::new();
    for (partition, records) in of.into_iter().enumerate() {
        let mut fenced = log.fence(Topic::Reminders, partition as u32).await?;
        owners.spawn(async move {
            for batch in records.chunks(BATCH) {
                fenced.append(batch.to_vec()).await?;
            }
            Ok::<_, foretell_ports::Error>(())
        });
    }
    while let Some(appended) = owners.join_next().await {
        appended??;
    }
    figure("only fenced appends", visits as f64 / began.elapsed().as_secs_f64(), "entries/s");
    let took = process::seconds("self")? - before;
    figure("processor time of only fenced appends", took * 1e6 / visits as f64, "us/entry");
    Ok(())
}

/// Waits until a service has announced that many, and prints its processor time since its first announcement.
pub(crate) async fn wait(host: &str, visits: usize, id: &str) -> Result<(), Failure> {
    let mut connection = Connection::open(host).await?;
    let (mut first, mut last, mut moved) = (None, 0, Instant::now());
    while last < visits {
        tokio::time::sleep(LOOK).await;
        let sent = sent(&mut connection).await?;
        if sent > last {
            first.get_or_insert((process::seconds(id)?, sent));
            (last, moved) = (sent, Instant::now());
        }
        if moved.elapsed() > PATIENCE {
            return Err(format!("{last} of {visits} reminders, and no further one in {PATIENCE:?}").into());
        }
    }
    if let Some((before, at)) = first.filter(|(_, at)| *at < visits) {
        let took = process::seconds(id)? - before;
        figure("processor time of the service", took * 1e6 / (visits - at) as f64, "us/entry");
    }
    Ok(())
}

async fn sent(connection: &mut Connection) -> Result<usize, Failure> {
    let (_, body) = connection.exchange(&request("GET /metrics", "", b"")).await?;
    let text = std::str::from_utf8(body)?;
    let line = text.lines().find(|line| line.starts_with("foretell_reminders_total{status=\"sent\"}"));
    let count = line.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Ok(count.unwrap_or(0.0) as usize)
}

/// Reads the topic of a directory that is not being served; checks that each visit is announced once, and prints the
/// delay and the rate.
pub(crate) async fn read(directory: &Path, visits: usize) -> Result<(), Failure> {
    let log = open(directory)?;
    let (mut delays, mut announced) = (Histogram::<u64>::new(3)?, BTreeSet::new());
    let (mut first_ms, mut last_ms) = (i64::MAX, i64::MIN);
    for partition in 0..PARTITIONS {
        let extent: Extent = log.extent(Topic::Reminders, partition).await?;
        let mut walk = Walk::begin(log.as_ref(), Topic::Reminders, partition, extent, "read reminders").await?;
        while let Some(records) = walk.next().await? {
            for record in records {
                let event = decode(&record).map_err(|faults| faults.to_string())?;
                let Fact::Reminder(ReminderFact::Due(due)) = event.fact else {
                    return Err("a reminder was taken back".into());
                };
                if due.step != "24h" || !announced.insert(due.appointment_id.clone()) {
                    return Err(format!("{} was announced twice, or by another step", due.appointment_id).into());
                }
                let due_ms = due.starts_at.parse::<jiff::Timestamp>()?.as_millisecond() - DAY_MS;
                let delay_ms =
                    u64::try_from(record.timestamp_ms - due_ms).map_err(|_| "announced before it was due")?;
                delays.record(delay_ms * 1_000)?;
                first_ms = first_ms.min(record.timestamp_ms);
                last_ms = last_ms.max(record.timestamp_ms);
            }
        }
    }
    if announced.len() != visits {
        return Err(format!("{} of {visits} visits were announced", announced.len()).into());
    }
    percentiles("from due to the topic", &delays);
    figure("reminders announced", visits as f64 * 1_000.0 / (last_ms - first_ms).max(1) as f64, "entries/s");
    Ok(())
}
