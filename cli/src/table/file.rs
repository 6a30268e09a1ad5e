//! A file of rows as the options name it: fields, format, where the rows go that are left out.

use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;

use super::chunks::Sizes;
use super::job::Job;
use super::option;
use super::rows::{BadRow, Direction, Done};
use crate::args::{Crypt, Format};
use crate::count::count;
use crate::escape;
use crate::exit::{Exit, Failure};
use crate::input::Input;
use crate::open::Keys;
use crate::output::Output;
use crate::progress::{Progress, is_watched};
use crate::tell::tell;

/// What to do with a file of rows: the options, checked as far as that goes without opening it.
#[derive(Debug)]
pub(crate) struct Plan {
    format: Format,
    fields: Vec<String>,
    partition_field: String,
    allow_sealed: bool,
    /// Where rows that fail are listed; `None` ends the run at the first.
    errors: Option<PathBuf>,
}

/// How much was left out.
#[derive(Debug, Default)]
struct LeftOut {
    rows: u64,
    /// Many more than rows where a quote is missing.
    lines: u64,
}

impl Plan {
    pub(crate) fn new(crypt: &Crypt, partition_field: &str, allow_sealed: bool) -> Result<Self, Failure> {
        let wrong = |message: String| Failure::new(Exit::Usage, message);
        let mut fields = Vec::new();
        for option in &crypt.fields {
            let names =
                option::split(option).map_err(|fault| wrong(format!("a name in --fields {fault}")))?;
            fields.extend(names);
        }
        for (place, field) in fields.iter().enumerate() {
            if field.is_empty() {
                return Err(wrong("--fields has an empty name; separate names by single commas".to_owned()));
            }
            if field == partition_field {
                let message = format!("--fields names the partition field {field}; it must stay readable");
                return Err(wrong(message));
            }
            if fields.iter().take(place).any(|earlier| earlier == field) {
                return Err(wrong(format!("--fields names {field} twice; name it once")));
            }
        }
        let format =
            crypt.format.or_else(|| crypt.input.as_deref().and_then(format_of)).ok_or_else(|| {
                wrong(
                "INPUT's name does not end in .csv, .jsonl or .ndjson; say --format csv or --format jsonl"
                    .to_owned(),
            )
            })?;
        Ok(Self {
            format,
            fields,
            partition_field: partition_field.to_owned(),
            allow_sealed,
            errors: if crypt.keep_going { Some(errors_path(crypt)?) } else { None },
        })
    }

    /// Where rows that fail are listed, if the run goes on without them.
    pub(crate) fn errors(&self) -> Option<&Path> {
        self.errors.as_deref()
    }

    /// Encrypts or decrypts the named fields of `input`. Says whether rows were left out, and how many
    /// were not.
    pub(crate) fn run(
        &self,
        runtime: &Runtime,
        direction: Direction,
        keys: &Keys,
        input: Input,
        mut output: Output,
        mut errors: Option<Output>,
    ) -> Result<(Exit, u64), Failure> {
        let Input { reader, name, bytes, is_terminal, .. } = input;
        let is_alone = !is_terminal && !errors.as_ref().is_some_and(Output::is_terminal);
        let mut progress = Progress::begin(bytes, is_alone && is_watched(&output));
        let mut left_out = LeftOut::default();
        let mut on_done = |done: &Done, bytes: usize| {
            output.write(&done.bytes)?;
            for bad in &done.left_out {
                left_out.rows += 1;
                left_out.lines += bad.lines();
                if let Some(errors) = &mut errors {
                    errors.write(&error_line(bad))?;
                }
            }
            progress.add(bytes, done.rows);
            Ok(())
        };
        self.job(direction, keys).run(runtime, reader, &name, &mut on_done)?;
        progress.end();
        // The list first: were it lost, nobody could tell that rows are missing from the output.
        if let Some(errors) = errors {
            errors.commit()?;
        }
        output.commit()?;
        let exit = if left_out.rows == 0 { Exit::Done } else { self.report(&left_out, &name) };
        Ok((exit, progress.rows()))
    }

    fn job(&self, direction: Direction, keys: &Keys) -> Job {
        Job {
            direction,
            format: self.format,
            fields: self.fields.clone(),
            partition_field: self.partition_field.clone(),
            factory: keys.factory.clone(),
            kms: keys.kms.clone(),
            keep_going: self.errors.is_some(),
            allow_sealed: self.allow_sealed,
            sizes: Sizes::STANDARD,
        }
    }

    fn report(&self, left_out: &LeftOut, name: &str) -> Exit {
        let path = self.errors.as_deref().unwrap_or(Path::new("")).display();
        let LeftOut { rows, lines } = *left_out;
        // One row that a quote makes of many must not pass for one.
        let spread = if lines > rows { format!(", on {}", count(lines, "line")) } else { String::new() };
        tell(format_args!("left out {} of {name}{spread}, listed in {path}", count(rows, "row")));
        Exit::RowsLeftOut
    }
}

/// A line of the errors file: where and why, never what.
fn error_line(bad: &BadRow) -> Vec<u8> {
    let mut entry = serde_json::json!({ "line": bad.line, "reason": bad.to_string() });
    if bad.last_line != bad.line
        && let Some(entry) = entry.as_object_mut()
    {
        entry.insert("last_line".to_owned(), bad.last_line.into());
    }
    let mut text = escape::json(&entry.to_string());
    text.push('\n');
    text.into_bytes()
}

fn format_of(path: &Path) -> Option<Format> {
    let extension = path.extension()?;
    if extension.eq_ignore_ascii_case("csv") {
        Some(Format::Csv)
    } else if extension.eq_ignore_ascii_case("jsonl") || extension.eq_ignore_ascii_case("ndjson") {
        Some(Format::Jsonl)
    } else {
        None
    }
}

fn errors_path(crypt: &Crypt) -> Result<PathBuf, Failure> {
    match &crypt.errors {
        Some(errors) if errors == Path::new("-") => {
            return Err(Failure::new(Exit::Usage, "--errors needs a file, and - is none; say --errors FILE"));
        }
        Some(errors) => return Ok(errors.clone()),
        None => {}
    }
    match crypt.output.as_deref().filter(|output| *output != Path::new("-")) {
        Some(output) => {
            let mut path = output.as_os_str().to_owned();
            path.push(".errors.jsonl");
            Ok(path.into())
        }
        None => Err(Failure::new(
            Exit::Usage,
            "--keep-going needs a file for the rows left out when the output is standard output; say --errors FILE",
        )),
    }
}
