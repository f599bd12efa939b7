//! Which generation of a family serves, and the steps from one to the next.
//!
//! ```text
//!   serving 1 ──begin──► serving 1, building 2 ──swap──► serving 2, 1 may be dropped ──dropped──► serving 2
//!                              │ cancel
//!                              └──► serving 1, 2 may be dropped
//! ```
//!
//! A pointer only changes by compare and set, so each step is taken once, whoever takes it. Numbers are never given
//! twice: a generation that was dropped stays dropped, whatever a late writer adds to it.

use super::{Family, Generation};
use serde::{Deserialize, Serialize};

/// Which generation of a family serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// What readers read.
    pub serving: u32,
    /// What the fold of the serving generation depends on: version, limits, zone rules.
    pub fingerprint: String,
    /// What is folded beside it, during a rebuild.
    pub building: Option<Building>,
    /// The lowest number whose rows may still be there.
    pub oldest: u32,
    /// The highest number that was ever given.
    pub latest: u32,
    /// Which physical topic.
    pub epoch: u8,
    /// Partition count of the topic when the epoch began.
    pub partitions: u32,
}

/// A generation that is to serve when it is level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Building {
    /// Its number.
    pub number: u32,
    /// What its fold depends on.
    pub fingerprint: String,
}

impl Pointer {
    /// The first pointer of a family: generation 1 serves.
    pub fn first(partitions: u32, fingerprint: String) -> Self {
        Self { serving: 1, fingerprint, building: None, oldest: 1, latest: 1, epoch: 0, partitions }
    }

    /// The generation that serves.
    pub fn serving(&self, family: Family) -> Generation {
        Generation { family, number: self.serving, epoch: self.epoch }
    }

    /// The generation that is built.
    pub fn building(&self, family: Family) -> Option<Generation> {
        self.building.as_ref().map(|building| Generation { family, number: building.number, epoch: self.epoch })
    }

    /// A new generation is built beside the one that serves, instead of one that was.
    pub fn begin(&self, fingerprint: String) -> Self {
        let number = self.latest + 1;
        Self { building: Some(Building { number, fingerprint }), latest: number, ..self.clone() }
    }

    /// What is built serves from now on; the same where nothing is.
    pub fn swap(&self) -> Self {
        match self.building.clone() {
            Some(Building { number, fingerprint }) => {
                Self { serving: number, fingerprint, building: None, ..self.clone() }
            }
            None => self.clone(),
        }
    }

    /// What is built is given up.
    pub fn cancel(&self) -> Self {
        Self { building: None, ..self.clone() }
    }

    /// Generations that nobody needs any more and whose rows may be there.
    pub fn droppable(&self, family: Family) -> Vec<Generation> {
        let is_needed = |number| number == self.serving || self.building.as_ref().is_some_and(|b| b.number == number);
        let numbers = (self.oldest..=self.latest).filter(|number| !is_needed(*number));
        numbers.map(|number| Generation { family, number, epoch: self.epoch }).collect()
    }

    /// The rows of all [`droppable`](Self::droppable) generations are dropped. What is above one that is needed is
    /// named again by a later pointer, and dropped again.
    pub fn dropped(&self) -> Self {
        let building = self.building.as_ref().map_or(self.serving, |building| building.number);
        Self { oldest: self.serving.min(building), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_never_given_twice_and_what_is_not_needed_can_be_dropped() {
        let family = Family::Logins;
        let dropped = |pointer: &Pointer| pointer.droppable(family).iter().map(|g| g.number).collect::<Vec<_>>();
        let first = Pointer::first(8, "a".to_owned());
        assert_eq!((dropped(&first), first.building(family)), (vec![], None));
        let given_up = first.begin("b".to_owned()).cancel();
        assert_eq!((dropped(&given_up), given_up.serving, given_up.latest), (vec![2], 1, 2));
        let building = given_up.begin("c".to_owned());
        assert_eq!(building.building(family).map(|g| g.number), Some(3));
        assert_eq!((dropped(&building), building.serving(family).number), (vec![2], 1));
        assert_eq!(dropped(&building.begin("d".to_owned())), [2, 3], "another one instead");
        let swapped = building.swap();
        assert_eq!((swapped.serving, swapped.fingerprint.as_str(), &swapped.building), (3, "c", &None));
        assert_eq!(swapped.swap(), swapped);
        assert_eq!(dropped(&swapped), [1, 2]);
        let clean = swapped.dropped();
        assert_eq!((clean.oldest, dropped(&clean)), (3, vec![]));
        assert_eq!(clean.begin("e".to_owned()).building(family).map(|g| g.number), Some(4));
    }
}
