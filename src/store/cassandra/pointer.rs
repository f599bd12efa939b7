//! The pointers: read and swapped by lightweight transactions, so that two operators cannot both win.

use super::{Cassandra, fault, int};
use crate::store::{Error, Family, Kind, Pointer};
use scylla::value::{CqlValue, Row};

/// What a pointer binds and selects: serving, building, epoch, partitions, fingerprint.
type Columns = (i32, Option<i32>, i32, i32, String);

impl Cassandra {
    /// The pointer of a family, with every swap that was acknowledged.
    pub(super) async fn read_pointer(&self, family: Family) -> Result<Option<Pointer>, Error> {
        let operation = "read the pointer";
        let result = self.session.execute_unpaged(&self.statements.read_pointer, (family.name(),)).await;
        let rows = result
            .map_err(|error| fault::execution(operation, &error))?
            .into_rows_result()
            .map_err(|error| fault::shape(operation, &error))?;
        let row = rows.maybe_first_row::<Columns>().map_err(|error| fault::shape(operation, &error))?;
        row.map(|columns| from_columns(columns).ok_or_else(|| fault::shape(operation, &"a number is out of range")))
            .transpose()
    }

    /// Sets the pointer if it still is `expected`.
    pub(super) async fn compare_and_set(
        &self,
        family: Family,
        expected: Option<&Pointer>,
        new: &Pointer,
    ) -> Result<bool, Error> {
        match self.attempt(family, expected, new).await {
            // Nobody knows whether it was done: the pointer itself does.
            Err(error) if error.kind == Kind::Retry => match self.read_pointer(family).await? {
                Some(found) if found == *new => Ok(true),
                _ => Err(error),
            },
            answered => answered,
        }
    }

    async fn attempt(&self, family: Family, expected: Option<&Pointer>, new: &Pointer) -> Result<bool, Error> {
        let operation = "swap the pointer";
        let name = family.name();
        let (serving, building, epoch, partitions, fingerprint) = columns(new)?;
        let result = match expected {
            None => {
                let values = (name, serving, building, epoch, partitions, fingerprint);
                self.session.execute_unpaged(&self.statements.create_pointer, values).await
            }
            Some(expected) => {
                let old = columns(expected)?;
                let values =
                    ((serving, building, epoch, partitions, fingerprint, name), (old.0, old.1, old.2, old.3, old.4));
                let ((a, b, c, d, e, f), (g, h, i, j, k)) = values;
                let values = (a, b, c, d, e, f, g, h, i, j, k);
                self.session.execute_unpaged(&self.statements.replace_pointer, values).await
            }
        };
        let rows = result
            .map_err(|error| fault::execution(operation, &error))?
            .into_rows_result()
            .map_err(|error| fault::shape(operation, &error))?;
        let row = rows.first_row::<Row>().map_err(|error| fault::shape(operation, &error))?;
        // The first column of the answer to a lightweight transaction is [applied].
        row.columns
            .first()
            .and_then(|column| column.as_ref().and_then(CqlValue::as_boolean))
            .ok_or_else(|| fault::shape(operation, &"the answer does not say whether it was applied"))
    }
}

fn columns(pointer: &Pointer) -> Result<Columns, Error> {
    Ok((
        int(pointer.serving)?,
        pointer.building.map(int).transpose()?,
        i32::from(pointer.epoch),
        int(pointer.partitions)?,
        pointer.fingerprint.clone(),
    ))
}

fn from_columns((serving, building, epoch, partitions, fingerprint): Columns) -> Option<Pointer> {
    Some(Pointer {
        serving: u32::try_from(serving).ok()?,
        building: building.map(u32::try_from).transpose().ok()?,
        epoch: u8::try_from(epoch).ok()?,
        partitions: u32::try_from(partitions).ok()?,
        fingerprint,
    })
}
