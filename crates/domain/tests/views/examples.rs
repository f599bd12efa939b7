//! Every example of the catalog is folded by its family.

use foretell_domain::view::cell::{decode_state, encode_state};
use foretell_domain::view::client::AppointmentFold;
use foretell_domain::view::materialized::Materialized;
use foretell_domain::view::sent::ReminderFold;
use foretell_domain::view::user::LoginFold;
use foretell_domain::view::{Aggregate, Fold, RecordPosition};
use foretell_events::catalog::{self, Type};
use foretell_events::codec::{self, Defaults};
use foretell_events::{Event, Topic};
use std::path::Path;

fn examples(known: &Type) -> Vec<Event> {
    let folder = Path::new(crate::REPOSITORY).join("catalog/examples").join(known.name);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let defaults = Defaults { tenant: "default", time_ms: 1_767_225_600_000 };
    let decode =
        |path| codec::decode_structured(&serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap(), defaults);
    files.into_iter().map(|path| decode(path).unwrap().event).collect()
}

/// Folds the events of a topic, and compares the result with a second fold and with its own bytes.
fn check<F: Fold + Default>(topic: Topic) {
    let events: Vec<_> = catalog::types().filter(|known| known.topic == topic).flat_map(examples).collect();
    assert!(events.len() >= 2, "{topic:?}");
    for event in &events {
        assert_eq!(event.fact.topic(), F::FAMILY.topic(), "{}", event.fact.type_name());
        let mut alone = Materialized::new(F::default());
        assert!(
            alone.take(event, RecordPosition { partition: 0, offset: 0 }),
            "{} changes its row",
            event.fact.type_name()
        );
        assert!(
            !alone.take(event, RecordPosition { partition: 0, offset: 1 }),
            "{} is repeated",
            event.fact.type_name()
        );
    }
    let fold = || {
        let mut rows = Materialized::new(F::default());
        for (offset, event) in (0..).zip(&events) {
            rows.take(event, RecordPosition { partition: 0, offset });
        }
        rows
    };
    let (rows, again) = (fold(), fold());
    assert_eq!(rows.states().collect::<Vec<_>>(), again.states().collect::<Vec<_>>(), "the same log, the same rows");
    for (key, source, state) in rows.states() {
        match source {
            Some(_) => assert_eq!(Aggregate::decode(key, &state).unwrap().encode(), state, "{key:?}"),
            None => {
                let owner: F::Owner = decode_state(&state).unwrap();
                assert_eq!((Some(&owner), encode_state(&owner)), (rows.owner(key), state), "{key:?}");
            }
        }
    }
}

#[test]
fn every_example_of_logins_is_folded() {
    check::<LoginFold>(Topic::Logins);
}

#[test]
fn every_example_of_appointments_is_folded() {
    check::<AppointmentFold>(Topic::Appointments);
}

#[test]
fn every_example_of_reminders_is_folded() {
    check::<ReminderFold>(Topic::Reminders);
}
