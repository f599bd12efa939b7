//! The pointers: changed by lightweight transactions, so that two concurrent swaps cannot both succeed, and read like
//! any row.

use super::{Cassandra, fault};
use foretell_domain::address::Family;
use foretell_domain::pointer::Pointer;
use foretell_ports::{Error, Kind};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlValue, Row};

impl Cassandra {
    /// The pointer of a family, including every acknowledged swap.
    pub(super) async fn read_pointer(&self, family: Family) -> Result<Option<Pointer>, Error> {
        self.pointer_by(&self.statements.read_pointer, family).await
    }

    async fn pointer_by(&self, statement: &PreparedStatement, family: Family) -> Result<Option<Pointer>, Error> {
        let operation = "read the pointer";
        let result = self.session.execute_unpaged(statement, (family.name(),)).await;
        let rows = result
            .map_err(|error| fault::execution(operation, &error))?
            .into_rows_result()
            .map_err(|error| fault::shape(operation, &error))?;
        let row = rows.maybe_first_row::<(String,)>().map_err(|error| fault::shape(operation, &error))?;
        row.map(|(state,)| serde_json::from_str(&state).map_err(|error| fault::shape(operation, &error))).transpose()
    }

    /// Sets the pointer if it still equals `expected`.
    pub(super) async fn compare_and_set(
        &self,
        family: Family,
        expected: Option<&Pointer>,
        new: &Pointer,
    ) -> Result<bool, Error> {
        match self.attempt(family, expected, new).await {
            // The outcome is unknown; reading the pointer determines it.
            Err(error) if error.kind == Kind::Retry => {
                match self.pointer_by(&self.statements.settle_pointer, family).await? {
                    Some(found) if found == *new => Ok(true),
                    _ => Err(error),
                }
            }
            answered => answered,
        }
    }

    async fn attempt(&self, family: Family, expected: Option<&Pointer>, new: &Pointer) -> Result<bool, Error> {
        let operation = "swap the pointer";
        let name = family.name();
        let state = text(new)?;
        let result = match expected {
            None => self.session.execute_unpaged(&self.statements.create_pointer, (name, state)).await,
            Some(expected) => {
                let values = (state, name, text(expected)?);
                self.session.execute_unpaged(&self.statements.replace_pointer, values).await
            }
        };
        let rows = result
            .map_err(|error| fault::execution(operation, &error))?
            .into_rows_result()
            .map_err(|error| fault::shape(operation, &error))?;
        let row = rows.first_row::<Row>().map_err(|error| fault::shape(operation, &error))?;
        // The first column of a lightweight transaction's result is [applied].
        row.columns
            .first()
            .and_then(|column| column.as_ref().and_then(CqlValue::as_boolean))
            .ok_or_else(|| fault::shape(operation, &"the result does not state whether the change was applied"))
    }
}

/// The cell of a pointer. Equal pointers have equal texts, whichever version wrote them, provided that a field that
/// is added later is omitted while it has its default value.
fn text(pointer: &Pointer) -> Result<String, Error> {
    serde_json::to_string(pointer).map_err(|error| Error::fatal("swap the pointer", error))
}
