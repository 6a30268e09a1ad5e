//! What a run works on: a whole payload, or fields of a file of rows.

use super::crypt::Crypt;
use crate::exit::{Exit, Failure};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode<'a> {
    Payload { partition: &'a str },
    Fields { partition_field: &'a str },
}

impl Crypt {
    /// Reads it from the options. Clap's own rules know which options go together and which do not,
    /// and not what was meant: their answers ask for what the next answer then refuses.
    pub(crate) fn mode(&self) -> Result<Mode<'_>, Failure> {
        let partition_field = self.partition_field.as_deref();
        let mode = match (self.partition.as_deref(), !self.fields.is_empty(), partition_field) {
            (Some(partition), false, None) => Mode::Payload { partition },
            (None, true, Some(partition_field)) => Mode::Fields { partition_field },
            (None, false, None) => return wrong(NOTHING),
            (None, true, None) => return wrong(FIELDS_ALONE),
            (None, false, Some(_)) => return wrong(PARTITION_FIELD_ALONE),
            (Some(_), true, None) => return wrong(PARTITION_AND_FIELDS),
            (Some(_), false, Some(_)) => return wrong(PARTITION_AND_PARTITION_FIELD),
            (Some(_), true, Some(_)) => return wrong(ALL),
        };
        match (mode, self.of_rows()) {
            (Mode::Payload { .. }, Some(option)) => wrong(&format!(
                "{option} is for fields of rows, and --partition for a whole payload; leave out {option}, or say \
                 --fields NAMES and --partition-field NAME in place of --partition"
            )),
            (Mode::Fields { .. }, _) if self.errors.is_some() && !self.keep_going => wrong(ERRORS_ALONE),
            _ => Ok(mode),
        }
    }

    /// The first option that is there and is about rows.
    fn of_rows(&self) -> Option<&'static str> {
        let given = [
            ("--format", self.format.is_some()),
            ("--keep-going", self.keep_going),
            ("--errors", self.errors.is_some()),
        ];
        given.iter().find(|(_, is_given)| *is_given).map(|(option, _)| *option)
    }
}

fn wrong<T>(message: &str) -> Result<T, Failure> {
    Err(Failure::new(Exit::Usage, message))
}

const NOTHING: &str = "\
     nothing says to whom INPUT belongs; say --partition ID for a whole payload, or --fields NAMES and \
     --partition-field NAME for fields of a CSV or JSON Lines file";

const FIELDS_ALONE: &str = "\
     --fields needs to know to whom each row belongs; say --partition-field NAME as well";

const PARTITION_FIELD_ALONE: &str = "\
     --partition-field needs to know which fields to work on; say --fields NAMES as well";

const PARTITION_AND_FIELDS: &str = "\
     --partition is for a whole payload, and --fields for rows that each say to whom they belong; say --partition-field \
     NAME in place of --partition, or leave out --fields";

const PARTITION_AND_PARTITION_FIELD: &str = "\
     --partition is for a whole payload, and --partition-field for rows; say --fields NAMES in place of --partition, or \
     leave out --partition-field";

const ALL: &str = "\
     --partition is for a whole payload, and --fields and --partition-field for rows that each say to whom they belong; \
     leave out --partition, or the other two";

const ERRORS_ALONE: &str = "\
     --errors is where --keep-going lists the rows it leaves out; say --keep-going as well, or leave out --errors";
