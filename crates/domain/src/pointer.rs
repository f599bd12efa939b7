//! Which generation of a family serves, and the steps from one to the next.
//!
//! ```text
//!   serving 1 ──begin──► serving 1, building 2 ──swap──► serving 2, 1 may be dropped ──dropped──► serving 2
//!                              │ cancel
//!                              └──► serving 1, 2 may be dropped
//!
//!   serving 1, epoch 0, 8 partitions ──move──► moving ──copied──► moving into 2 ──moved──► serving 2, epoch 1, 16
//!                                                │ cancel
//!                                                └──► as before
//! ```
//!
//! A pointer changes only by compare-and-set, so each step is taken once, by any process. Numbers are never reused: a
//! dropped generation stays dropped, even if a late writer adds rows to it.

use crate::address::{Family, Generation};
use serde::{Deserialize, Serialize};

/// Which generation of a family serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// The generation that answers are read from.
    pub serving: u32,
    /// What the fold of the serving generation depends on: version, limits, zone rules.
    pub fingerprint: String,
    /// The generation that is folded in parallel, during a rebuild.
    pub building: Option<Building>,
    /// The lowest number whose rows may still exist.
    pub oldest: u32,
    /// The highest number that was ever used.
    pub latest: u32,
    /// Which physical topic.
    pub epoch: u8,
    /// Partition count of the topic when the epoch began.
    pub partitions: u32,
    /// The start, in milliseconds since the epoch by the log's clock, from which records are checked by the
    /// [gate](foretell_events::gate). Without it, no records are checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gated_from_ms: Option<i64>,
    /// The topic that will replace this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<Moving>,
}

/// The next topic of a family, with another partition count. Meanwhile the family is not folded, read or appended to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// The epoch of the other topic.
    pub epoch: u8,
    /// Its partition count.
    pub partitions: u32,
    /// The generation that is folded from it; none until everything is copied.
    pub into: Option<Building>,
}

/// A generation that will serve when it has caught up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Building {
    /// Its number.
    pub number: u32,
    /// What its fold depends on.
    pub fingerprint: String,
    /// See [`Pointer::gated_from_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gated_from_ms: Option<i64>,
}

impl Pointer {
    /// The first pointer of a family: generation 1 serves.
    pub fn first(partitions: u32, fingerprint: String) -> Self {
        let (epoch, gated_from_ms, building, moving) = (0, None, None, None);
        Self { serving: 1, fingerprint, building, oldest: 1, latest: 1, epoch, partitions, gated_from_ms, moving }
    }

    /// The generation that was begun last checks records from `from_ms` on by the gate, unless it already has another
    /// start: a start that was stored once stays, so that each later fold decides the same.
    pub fn gated(mut self, from_ms: Option<i64>) -> Self {
        let into = self.moving.as_mut().and_then(|moving| moving.into.as_mut());
        let begun = self.building.as_mut().or(into).map(|begun| &mut begun.gated_from_ms);
        let gated_from_ms = begun.unwrap_or(&mut self.gated_from_ms);
        *gated_from_ms = gated_from_ms.or(from_ms);
        self
    }

    /// See [`gated_from_ms`](Self::gated_from_ms), for any generation that the pointer names.
    pub fn gated_from_ms_of(&self, generation: Generation) -> Option<i64> {
        let into = self.moving.as_ref().and_then(|moving| moving.into.as_ref());
        let begun = self.building.iter().chain(into).find(|begun| begun.number == generation.number);
        begun.map_or(self.gated_from_ms, |begun| begun.gated_from_ms)
    }

    /// The generation that serves.
    pub fn serving(&self, family: Family) -> Generation {
        Generation { family, number: self.serving, epoch: self.epoch }
    }

    /// The generation that is built.
    pub fn building(&self, family: Family) -> Option<Generation> {
        self.building.as_ref().map(|building| Generation { family, number: building.number, epoch: self.epoch })
    }

    /// Begins a new generation in parallel with the serving one; it replaces one that was being built.
    pub fn begin(&self, fingerprint: String) -> Self {
        let number = self.latest + 1;
        let gated_from_ms = self.gated_from_ms;
        Self { building: Some(Building { number, fingerprint, gated_from_ms }), latest: number, ..self.clone() }
    }

    /// The generation being built serves from now on; unchanged if there is none.
    pub fn swap(&self) -> Self {
        match self.building.clone() {
            Some(Building { number, fingerprint, gated_from_ms }) => {
                Self { serving: number, fingerprint, gated_from_ms, building: None, ..self.clone() }
            }
            None => self.clone(),
        }
    }

    /// The generation being built is abandoned.
    pub fn cancel(&self) -> Self {
        Self { building: None, ..self.clone() }
    }

    /// The generation that is folded from the topic of the next epoch.
    pub fn target(&self, family: Family) -> Option<Generation> {
        let Moving { epoch, into, .. } = self.moving.as_ref()?;
        into.as_ref().map(|into| Generation { family, number: into.number, epoch: *epoch })
    }

    /// The epoch of the topic to read from and append to: the next one once a move has copied everything.
    pub fn topic_epoch(&self) -> u8 {
        let copied = self.moving.as_ref().filter(|moving| moving.into.is_some());
        copied.map_or(self.epoch, |moving| moving.epoch)
    }

    /// Records are copied into a topic of the next epoch with `partitions` partitions; it replaces a copy that was
    /// begun.
    pub fn move_to(&self, partitions: u32) -> Self {
        Self { moving: Some(Moving { epoch: self.epoch + 1, partitions, into: None }), ..self.clone() }
    }

    /// Everything is copied, and a new generation is folded from the copy; unchanged if there is no move.
    pub fn copied(&self, fingerprint: String) -> Self {
        let Some(Moving { epoch, partitions, .. }) = self.moving else { return self.clone() };
        let number = self.latest + 1;
        let into = Some(Building { number, fingerprint, gated_from_ms: self.gated_from_ms });
        Self { moving: Some(Moving { epoch, partitions, into }), latest: number, ..self.clone() }
    }

    /// The generation folded from the copy serves, and its topic is the family's; unchanged if none was folded.
    pub fn moved(&self) -> Self {
        match self.moving.clone() {
            Some(Moving { epoch, partitions, into: Some(Building { number, fingerprint, gated_from_ms }) }) => {
                let (serving, building, moving) = (number, None, None);
                Self { serving, fingerprint, building, epoch, partitions, gated_from_ms, moving, ..self.clone() }
            }
            _ => self.clone(),
        }
    }

    /// The topic stays as it is.
    pub fn stay(&self) -> Self {
        Self { moving: None, ..self.clone() }
    }

    /// Generations that are no longer needed and whose rows may exist.
    pub fn droppable(&self, family: Family) -> Vec<Generation> {
        let into = self.moving.as_ref().and_then(|moving| moving.into.as_ref());
        let needed: Vec<_> = self.building.iter().chain(into).map(|b| b.number).chain([self.serving]).collect();
        let is_needed = |number| needed.contains(&number);
        let numbers = (self.oldest..=self.latest).filter(|number| !is_needed(*number));
        numbers.map(|number| Generation { family, number, epoch: self.epoch }).collect()
    }

    /// The rows of all [`droppable`](Self::droppable) generations are dropped. Generations above a needed one are
    /// listed again by a later pointer, and dropped again.
    pub fn dropped(&self) -> Self {
        let into = self.moving.as_ref().and_then(|moving| moving.into.as_ref());
        let lowest = self.building.iter().chain(into).map(|b| b.number).fold(self.serving, u32::min);
        Self { oldest: lowest, ..self.clone() }
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

    #[test]
    fn a_topic_is_exchanged_in_steps_and_each_generation_belongs_to_one_epoch() {
        let family = Family::Appointments;
        let first = Pointer::first(8, "a".to_owned());
        let moving = first.move_to(16);
        let half = moving.copied("b".to_owned());
        let again = half.copied("c".to_owned());
        let moved = again.moved();
        let shape = |pointer: &Pointer| (pointer.serving(family), pointer.target(family), pointer.partitions);
        let generation = |number, epoch| Generation { family, number, epoch };
        for (name, pointer, expected) in [
            ("first", &first, (generation(1, 0), None, 8)),
            ("copying", &moving, (generation(1, 0), None, 8)),
            ("copying to another count", &moving.move_to(4), (generation(1, 0), None, 8)),
            ("nothing was copied", &moving.moved(), (generation(1, 0), None, 8)),
            ("nothing is moved", &first.copied("b".to_owned()).moved(), (generation(1, 0), None, 8)),
            ("folding", &half, (generation(1, 0), Some(generation(2, 1)), 8)),
            ("folding anew", &again, (generation(1, 0), Some(generation(3, 1)), 8)),
            ("moved", &moved, (generation(3, 1), None, 16)),
            ("moved again", &moved.move_to(2).copied("c".to_owned()).moved(), (generation(4, 2), None, 2)),
            ("given up", &again.stay(), (generation(1, 0), None, 8)),
        ] {
            assert_eq!(shape(pointer), expected, "{name}");
        }
        let epochs = [&first, &moving, &half, &again, &moved].map(Pointer::topic_epoch);
        assert_eq!(epochs, [0, 0, 1, 1, 1], "the copy is read as soon as it is whole");
        assert_eq!((moved.fingerprint.as_str(), &moved.moving, &moved.building), ("c", &None, &None));
        let droppable = |pointer: &Pointer| pointer.droppable(family).iter().map(|g| g.number).collect::<Vec<_>>();
        assert_eq!((droppable(&half), droppable(&again), droppable(&moved)), (vec![], vec![2], vec![1, 2]));
        assert_eq!(droppable(&moved.dropped()), Vec::<u32>::new());
    }

    #[test]
    fn the_time_of_the_gate_is_written_down_once_and_goes_with_the_rows() {
        let family = Family::Logins;
        let generation = |number, epoch| Generation { family, number, epoch };
        let first = Pointer::first(8, "a".to_owned());
        let of = |pointer: &Pointer, number| pointer.gated_from_ms_of(generation(number, pointer.epoch));
        assert_eq!((first.gated_from_ms, first.clone().gated(None).gated(Some(3)).gated_from_ms), (None, Some(3)));

        let upgrade = first.begin("b".to_owned()).gated(Some(5));
        assert_eq!((of(&upgrade, 1), of(&upgrade, 2)), (None, Some(5)), "what serves is folded on as it was");
        assert_eq!(upgrade.cancel().gated_from_ms, None);
        let upgraded = upgrade.swap();
        assert_eq!((of(&upgraded, 2), upgraded.gated_from_ms), (Some(5), Some(5)));
        let again = upgraded.begin("c".to_owned()).gated(Some(9)).swap();
        assert_eq!(again.gated_from_ms, Some(5), "no later fold asks later");

        let moved = again.move_to(16).copied("c".to_owned()).gated(Some(9));
        assert_eq!((moved.gated_from_ms_of(generation(4, 1)), moved.moved().gated_from_ms), (Some(5), Some(5)));
        let moved = first.move_to(16).copied("c".to_owned()).gated(Some(9));
        assert_eq!((of(&moved, 1), moved.moved().gated_from_ms), (None, Some(9)));
    }

    #[test]
    fn a_pointer_without_a_move_is_written_as_it_always_was() {
        let text = serde_json::to_string(&Pointer::first(8, "a".to_owned())).unwrap();
        assert!(!text.contains("moving") && !text.contains("gated"), "{text}");
        assert_eq!(serde_json::from_str::<Pointer>(&text).unwrap(), Pointer::first(8, "a".to_owned()));
        let moving = Pointer::first(8, "a".to_owned()).move_to(16).copied("b".to_owned());
        let read: Pointer = serde_json::from_str(&serde_json::to_string(&moving).unwrap()).unwrap();
        assert_eq!(read, moving);
    }
}
