//! Consumer groups within one process, for logs without a broker.
//!
//! ```text
//!   wanted ──────── the member that the partition should belong to, since the last join, leave or rebalance
//!   holder ──────── the assignment that reads it now
//!
//!   wanted ≠ holder: the reader is notified ─► Revoked(acknowledge) ─► dropped ─► wanted becomes the next holder
//! ```
//!
//! Partitions are assigned round-robin to the members in the order in which they joined. A simulation can choose
//! another assignment and how partitions are handed over, including owners that write late: see [`Handover`].
//! Everything is decided under one lock and in a fixed order, so that a run on a paused runtime is reproducible.
//!
//! The next owner waits until the acknowledgement is dropped, without a time limit: the pipeline that holds it
//! limits its own drain, and no member of the same process can disappear without dropping it.

use super::{Acknowledge, Assigned, Log, Membership, Next, Reader};
use crate::Error;
use async_trait::async_trait;
use foretell_events::Topic;
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::{Notify, oneshot};

/// How a partition passes from one member to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handover {
    /// The old reader is notified, and the new owner waits until it has drained.
    Drained,
    /// The old reader is notified, but the new owner does not wait, as after a drain that took too long.
    AtOnce,
    /// The old reader is not notified and keeps reading alongside the new owner, until [`Groups::notify_revoked`].
    Unnoticed,
}

/// All groups of one log; cheap to clone.
#[derive(Clone, Default)]
pub struct Groups {
    state: Arc<Mutex<BTreeMap<Key, Group>>>,
    /// Wakes waiters in the order in which they began to wait; a watch channel wakes them in random order.
    changed: Arc<Notify>,
}

type Key = (String, Topic);

#[derive(Default)]
struct Group {
    members: BTreeSet<u64>,
    /// Assignments that were revoked without notifying their readers.
    unaware: BTreeSet<u64>,
    slots: Vec<Slot>,
    /// The last number given to a member or an assignment.
    issued: u64,
}

/// A partition of the topic.
#[derive(Default)]
struct Slot {
    wanted: Option<u64>,
    holder: Option<Holder>,
    committed: Option<i64>,
}

struct Holder {
    member: u64,
    assignment: u64,
    status: Status,
}

enum Status {
    Owns,
    /// It is notified at its next read.
    Revoked,
    /// It was notified; the receiver fails when it has drained.
    Draining(oneshot::Receiver<()>),
}

impl Group {
    fn issue(&mut self) -> u64 {
        self.issued += 1;
        self.issued
    }

    fn deal(&mut self) {
        let count = self.members.len();
        self.assign(Handover::Drained, |partition, _| partition as usize % count.max(1));
    }

    /// Sets the wanted member of each partition; an index beyond the last member means none.
    fn assign(&mut self, handover: Handover, mut choose: impl FnMut(u32, usize) -> usize) {
        let members: Vec<u64> = self.members.iter().copied().collect();
        for (partition, slot) in (0_u32..).zip(&mut self.slots) {
            slot.wanted = members.get(choose(partition, members.len())).copied();
            let wanted = slot.wanted;
            let Some(holder) = &mut slot.holder else { continue };
            match (&holder.status, handover) {
                _ if wanted == Some(holder.member) => {
                    if matches!(holder.status, Status::Revoked) {
                        holder.status = Status::Owns;
                    }
                }
                (Status::Owns, Handover::Drained) => holder.status = Status::Revoked,
                (_, Handover::Drained) => {}
                (_, Handover::AtOnce) => slot.holder = None,
                (_, Handover::Unnoticed) => {
                    self.unaware.insert(holder.assignment);
                    slot.holder = None;
                }
            }
        }
    }

    /// Assigns to `member` the first free partition that it is wanted for.
    fn take(&mut self, member: u64) -> Option<(u32, u64, Option<i64>)> {
        let free = |slot: &Slot| slot.wanted == Some(member) && slot.holder.is_none();
        let index = self.slots.iter().position(free)?;
        let assignment = self.issue();
        let slot = &mut self.slots[index];
        slot.holder = Some(Holder { member, assignment, status: Status::Owns });
        Some((index as u32, assignment, slot.committed))
    }

    /// The acknowledgement to pass on, if the assignment must be notified of its revocation.
    fn revocation(&mut self, partition: u32, assignment: u64) -> Option<Acknowledge> {
        match &mut self.slots[partition as usize].holder {
            Some(holder) if holder.assignment == assignment => match holder.status {
                Status::Owns => None,
                Status::Revoked | Status::Draining(_) => {
                    let (acknowledge, drained) = Acknowledge::new();
                    holder.status = Status::Draining(drained);
                    Some(acknowledge)
                }
            },
            _ if self.unaware.contains(&assignment) => None,
            _ => Some(Acknowledge::new().0),
        }
    }

    /// The reader was dropped: its partition is free, unless its acknowledgement is still held.
    fn release(&mut self, partition: u32, assignment: u64) {
        self.unaware.remove(&assignment);
        let holder = &mut self.slots[partition as usize].holder;
        let mine = |h: &Holder| h.assignment == assignment && !matches!(h.status, Status::Draining(_));
        if holder.as_ref().is_some_and(mine) {
            *holder = None;
        }
    }

    /// Frees the partitions that `member` waits for and whose holders have drained.
    fn poll_drained(&mut self, member: u64, cx: &mut Context<'_>) -> Poll<()> {
        let mut freed = Poll::Pending;
        for slot in self.slots.iter_mut().filter(|slot| slot.wanted == Some(member)) {
            let Some(Holder { status: Status::Draining(drained), .. }) = &mut slot.holder else { continue };
            if Pin::new(drained).poll(cx).is_ready() {
                slot.holder = None;
                freed = Poll::Ready(());
            }
        }
        freed
    }
}

impl Groups {
    /// Joins a group on a topic of `log`, whose partitions are read through [`Log::read`].
    pub fn join(&self, log: Arc<dyn Log>, name: &str, topic: Topic) -> Box<dyn Membership> {
        let key = (name.to_owned(), topic);
        let partitions = log.partitions(topic) as usize;
        let id = self.with(&key, |group| {
            group.slots.resize_with(partitions, Slot::default);
            let id = group.issue();
            group.members.insert(id);
            group.deal();
            id
        });
        Box::new(Member { groups: self.clone(), log, key, id })
    }

    /// Reassigns the partitions: `choose` returns the index of a member, in the order of joining, for a partition and
    /// the number of members. The assignment is valid until the next join or leave.
    pub fn rebalance(&self, name: &str, topic: Topic, handover: Handover, choose: impl FnMut(u32, usize) -> usize) {
        self.with(&(name.to_owned(), topic), |group| group.assign(handover, choose));
    }

    /// Notifies readers that have lost their partition without a notification.
    pub fn notify_revoked(&self, name: &str, topic: Topic) {
        self.with(&(name.to_owned(), topic), |group| group.unaware.clear());
    }

    /// The offset that a group committed last for a partition.
    pub fn committed(&self, name: &str, topic: Topic, partition: u32) -> Option<i64> {
        let state = self.lock();
        state.get(&(name.to_owned(), topic))?.slots.get(partition as usize)?.committed
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Group>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a group, and wakes all tasks that wait for a change.
    fn with<T>(&self, key: &Key, change: impl FnOnce(&mut Group) -> T) -> T {
        let answer = change(self.lock().entry(key.clone()).or_default());
        self.changed.notify_waiters();
        answer
    }
}

struct Member {
    groups: Groups,
    log: Arc<dyn Log>,
    key: Key,
    id: u64,
}

impl Member {
    fn take(&self) -> Option<Assigned> {
        let taken = self.groups.lock().get_mut(&self.key)?.take(self.id);
        let (partition, assignment, committed) = taken?;
        let (start, started) = oneshot::channel();
        let reader = Box::new(Owned {
            groups: self.groups.clone(),
            log: Arc::clone(&self.log),
            key: self.key.clone(),
            partition,
            assignment,
            stage: Stage::Waits(started),
        });
        Some(Assigned { partition, committed, start, reader })
    }

    fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.groups.lock().get_mut(&self.key).map_or(Poll::Pending, |group| group.poll_drained(self.id, cx))
    }
}

#[async_trait]
impl Membership for Member {
    async fn next(&mut self) -> Result<Assigned, Error> {
        let groups = self.groups.clone();
        loop {
            let mut changed = pin!(groups.changed.notified());
            changed.as_mut().enable();
            if let Some(assigned) = self.take() {
                return Ok(assigned);
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = poll_fn(|cx| self.poll_drained(cx)) => {}
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.groups.with(&self.key, |group| {
            group.members.remove(&self.id);
            group.deal();
        });
    }
}

/// The reader of an assigned partition.
struct Owned {
    groups: Groups,
    log: Arc<dyn Log>,
    key: Key,
    partition: u32,
    assignment: u64,
    stage: Stage,
}

enum Stage {
    Waits(oneshot::Receiver<i64>),
    Opens(i64),
    Reads(Box<dyn Reader>),
    Over,
}

impl Owned {
    fn revocation(&self) -> Option<Acknowledge> {
        self.groups.lock().get_mut(&self.key)?.revocation(self.partition, self.assignment)
    }

    /// The stage records every completed step, so that a cancelled call resumes where it was.
    async fn advance(&mut self) -> Result<Next, Error> {
        const OPERATION: &str = "read an assigned partition";
        loop {
            match &mut self.stage {
                Stage::Waits(started) => match started.await {
                    Ok(from) => self.stage = Stage::Opens(from),
                    Err(_) => {
                        self.release();
                        return Err(Error::retry(OPERATION, "no start offset was sent, so the partition was released"));
                    }
                },
                Stage::Opens(from) => {
                    let reader = self.log.read(self.key.1, self.partition, *from).await?;
                    self.stage = Stage::Reads(reader);
                }
                Stage::Reads(reader) => return reader.next().await,
                Stage::Over => return Err(Error::retry(OPERATION, "the partition was revoked")),
            }
        }
    }

    fn release(&mut self) {
        self.stage = Stage::Over;
        self.groups.with(&self.key, |group| group.release(self.partition, self.assignment));
    }
}

#[async_trait]
impl Reader for Owned {
    async fn next(&mut self) -> Result<Next, Error> {
        let groups = self.groups.clone();
        loop {
            let mut changed = pin!(groups.changed.notified());
            changed.as_mut().enable();
            if !matches!(self.stage, Stage::Over)
                && let Some(acknowledge) = self.revocation()
            {
                self.stage = Stage::Over;
                groups.changed.notify_waiters();
                return Ok(Next::Revoked(acknowledge));
            }
            tokio::select! {
                biased;
                () = changed => {}
                next = self.advance() => return next,
            }
        }
    }

    async fn commit(&mut self, next: i64) -> Result<(), Error> {
        self.groups.with(&self.key, |group| {
            let slot = &mut group.slots[self.partition as usize];
            if slot.holder.as_ref().is_some_and(|holder| holder.assignment == self.assignment) {
                slot.committed = Some(next);
            }
        });
        Ok(())
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.groups.with(&self.key, |group| group.release(self.partition, self.assignment));
    }
}
