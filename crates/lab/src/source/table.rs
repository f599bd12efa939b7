//! Rows of a CSV file with a header line, and how their columns become the data of an event.
//!
//! Columns are found by their names, in any order, and further ones are ignored. An empty value and `-` are treated as
//! missing. A row of more than [`RECORD_BYTES_MAX`] ends the reading.

use super::{Error, Origin, Rows};
use csv::{Reader, ReaderBuilder, StringRecord};
use foretell_events::Fact;
use foretell_events::codec::{self, Faults};
use foretell_events::record::RECORD_BYTES_MAX;
use serde_json::{Map, Number, Value};
use std::io::{self, BufRead, Read};

/// The type of the field that a column becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text.
    Text,
    /// A JSON number; anything else remains text, which the codec rejects.
    Number,
}

/// A column and the field that it becomes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) field: &'static str,
    pub(super) kind: Kind,
}

/// A column that becomes a text.
pub(super) const fn text(name: &'static str, field: &'static str) -> Column {
    Column { name, field, kind: Kind::Text }
}

/// A column that becomes a number.
pub(super) const fn number(name: &'static str, field: &'static str) -> Column {
    Column { name, field, kind: Kind::Number }
}

/// Bytes that the CSV reader reads at a time, by which a row may exceed [`RECORD_BYTES_MAX`].
const BUFFER_BYTES: usize = 8 * 1024;

/// How many columns an error lists, and how much of each name.
const COLUMNS_SHOWN: usize = 8;
const COLUMN_CHARS_SHOWN: usize = 40;

/// An input that fails if a row does not end, as after an unclosed quote, before all of it is in memory.
struct Bounded<'i> {
    input: &'i mut dyn BufRead,
    /// Bytes that the current row may still have.
    left_bytes: usize,
}

impl Bounded<'_> {
    const fn begin_row(&mut self) {
        self.left_bytes = RECORD_BYTES_MAX + BUFFER_BYTES;
    }
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.left_bytes);
        if count == 0 && !buffer.is_empty() {
            let detail = format!("a row is longer than {RECORD_BYTES_MAX} bytes; is a quote left open?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
        }
        let count = self.input.read(&mut buffer[..count])?;
        self.left_bytes -= count;
        Ok(count)
    }
}

/// A CSV file whose header has been read.
pub(super) struct Table<'i> {
    reader: Reader<Bounded<'i>>,
    names: StringRecord,
    record: StringRecord,
}

impl<'i> Table<'i> {
    pub(super) fn open(input: &'i mut dyn BufRead, origin: Origin<'_>) -> Result<Self, Error> {
        let mut input = Bounded { input, left_bytes: 0 };
        input.begin_row();
        let mut reader = ReaderBuilder::new().buffer_capacity(BUFFER_BYTES).from_reader(input);
        let names = reader.headers().map_err(|cause| origin.unreadable(1, &cause))?.clone();
        Ok(Self { reader, names, record: StringRecord::new() })
    }

    /// Whether there is a column with this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known.trim() == name)
    }

    /// Finds a column.
    pub(super) fn find(&self, name: &'static str, origin: Origin<'_>) -> Result<ColumnAt, Error> {
        match self.names.iter().position(|known| known.trim() == name) {
            Some(index) => Ok(ColumnAt { name, index }),
            None => {
                let shown = |name: &str| name.trim().chars().take(COLUMN_CHARS_SHOWN).collect::<String>();
                let columns = self.names.iter().take(COLUMNS_SHOWN).map(shown).collect::<Vec<_>>().join(", ");
                Err(Error::Column { file: origin.file.to_owned(), column: name, columns })
            }
        }
    }

    /// Finds the columns that become fields.
    pub(super) fn fields(&self, columns: &[Column], origin: Origin<'_>) -> Result<Fields, Error> {
        let found = |column: &Column| Ok((*column, self.find(column.name, origin)?));
        Ok(Fields(columns.iter().map(found).collect::<Result<_, _>>()?))
    }

    /// The next row, counted.
    pub(super) fn next(&mut self, rows: &mut Rows<'_>) -> Result<Option<TableRow<'_>>, Error> {
        let line = self.reader.position().line();
        self.reader.get_mut().begin_row();
        match self.reader.read_record(&mut self.record) {
            Ok(false) => Ok(None),
            Ok(true) => {
                rows.count += 1;
                let line = self.record.position().map_or(line, csv::Position::line);
                Ok(Some(TableRow { record: &self.record, line }))
            }
            Err(cause) => Err(rows.origin.unreadable(line, &cause)),
        }
    }
}

/// A column of a file, with its index.
#[derive(Debug, Clone, Copy)]
pub(super) struct ColumnAt {
    pub(super) name: &'static str,
    index: usize,
}

/// The columns of a file that become fields.
#[derive(Debug)]
pub(super) struct Fields(Vec<(Column, ColumnAt)>);

impl Fields {
    /// The column of the field that an error points to; the pointer itself if there is none.
    fn column<'a>(&self, pointer: &'a str) -> &'a str {
        let field = pointer.strip_prefix("/data/").unwrap_or(pointer);
        let field = field.strip_prefix("attributes/").unwrap_or(field);
        self.0.iter().find(|(column, _)| column.field == field).map_or(pointer, |(column, _)| column.name)
    }
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableRow<'r> {
    record: &'r StringRecord,
    pub(super) line: u64,
}

impl<'r> TableRow<'r> {
    /// The value of a column, unless it is missing.
    pub(super) fn value(&self, column: ColumnAt) -> Option<&'r str> {
        self.record.get(column.index).map(str::trim).filter(|text| !matches!(*text, "" | "-"))
    }

    /// The value of a required column.
    pub(super) fn required(&self, column: ColumnAt, origin: Origin<'_>) -> Result<&'r str, Error> {
        self.value(column).ok_or_else(|| origin.bad(self.line, column.name, "is empty"))
    }

    /// A column with one of two words for yes and no, in any letter case.
    pub(super) fn flag(&self, column: ColumnAt, words: (&str, &str), origin: Origin<'_>) -> Result<bool, Error> {
        let text = self.required(column, origin)?;
        match text {
            _ if text.eq_ignore_ascii_case(words.0) => Ok(true),
            _ if text.eq_ignore_ascii_case(words.1) => Ok(false),
            _ => Err(origin.bad(self.line, column.name, format!("is neither {} nor {}", words.0, words.1))),
        }
    }

    /// A column that contains an RFC 3339 time after `suffix` is appended and a space is replaced by `T`.
    pub(super) fn time_ms(&self, column: ColumnAt, suffix: &str, origin: Origin<'_>) -> Result<i64, Error> {
        let text = format!("{}{suffix}", self.required(column, origin)?.replacen(' ', "T", 1));
        codec::parse_rfc3339(&text).map_err(|fault| origin.bad(self.line, column.name, fault.detail))
    }

    /// The existing columns, as fields.
    pub(super) fn object(&self, fields: &Fields) -> Map<String, Value> {
        let value = |(column, at): &(Column, ColumnAt)| {
            let text = self.value(*at)?;
            let number = match column.kind {
                Kind::Number => text.parse().ok().and_then(Number::from_f64).map(Value::Number),
                Kind::Text => None,
            };
            Some((column.field.to_owned(), number.unwrap_or_else(|| Value::String(text.to_owned()))))
        };
        fields.0.iter().filter_map(value).collect()
    }

    /// The fact of a row's fields; its first validation error is the row's error.
    pub(super) fn fact(
        &self,
        type_name: &str,
        data: &Map<String, Value>,
        fields: &Fields,
        origin: Origin<'_>,
    ) -> Result<Fact, Error> {
        codec::decode_data(type_name, data).map_err(|faults: Faults| {
            let fault = faults.first();
            origin.bad(self.line, fields.column(&fault.pointer), fault.detail.clone())
        })
    }
}
