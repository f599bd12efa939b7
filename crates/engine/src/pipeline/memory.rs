//! Divides the memory for rows of folds that are behind among all partitions of a process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the partitions of a process that are behind; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    behind: Arc<AtomicUsize>,
}

impl Memory {
    /// The share of one partition, not held yet.
    pub(super) fn share(&self) -> Share {
        Share { memory: self.clone(), is_held: false }
    }
}

/// The part of the memory that one partition may use while it is behind; released when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    memory: Memory,
    is_held: bool,
}

impl Share {
    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    pub(super) fn hold(&mut self) {
        if !std::mem::replace(&mut self.is_held, true) {
            self.memory.behind.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn release(&mut self) {
        if std::mem::replace(&mut self.is_held, false) {
            self.memory.behind.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// This share of `bytes`.
    pub(super) fn bytes_max(&self, bytes: usize) -> usize {
        bytes / self.memory.behind.load(Ordering::Relaxed).max(1)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_that_are_behind_share_the_memory_until_they_have_caught_up() {
        let memory = Memory::default();
        let (mut first, mut second) = (memory.share(), memory.share());
        first.hold();
        first.hold();
        assert_eq!(first.bytes_max(100), 100);
        second.hold();
        assert_eq!((first.bytes_max(100), second.bytes_max(100)), (50, 50));
        drop(second);
        assert_eq!(first.bytes_max(100), 100);
        first.release();
        first.release();
        assert_eq!(memory.share().bytes_max(100), 100);
    }
}
