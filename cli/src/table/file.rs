//! A file of rows from end to end: format, header, rows, the rows left out.

use std::path::{Path, PathBuf};

use tokio::runtime::Runtime;

use super::chunks::Chunks;
use super::csv::CsvLayout;
use super::jsonl::JsonLayout;
use super::pipeline::{self, chunk_failure};
use super::rows::{Direction, Done, Work};
use super::{Layout, RowError};
use crate::args::{Crypt, Format};
use crate::count::count;
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
    /// Where rows that fail are listed; `None` ends the run at the first.
    errors: Option<PathBuf>,
}

impl Plan {
    pub(crate) fn new(crypt: &Crypt, partition_field: &str) -> Result<Self, Failure> {
        let wrong = |message: String| Err(Failure::new(Exit::Usage, message));
        for (place, field) in crypt.fields.iter().enumerate() {
            if field.is_empty() {
                return wrong("--fields has an empty name; separate names by single commas".to_owned());
            }
            if field == partition_field {
                return wrong(format!("--fields names the partition field {field}; it must stay readable"));
            }
            if crypt.fields.iter().take(place).any(|earlier| earlier == field) {
                return wrong(format!("--fields names {field} twice; name it once"));
            }
        }
        let Some(format) = crypt.format.or_else(|| crypt.input.as_deref().and_then(format_of)) else {
            return wrong(
                "INPUT's name does not end in .csv, .jsonl or .ndjson; say --format csv or --format jsonl"
                    .to_owned(),
            );
        };
        Ok(Self {
            format,
            fields: crypt.fields.clone(),
            partition_field: partition_field.to_owned(),
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
        let mut chunks = Chunks::new(reader);
        let is_alone = !is_terminal && !errors.as_ref().is_some_and(Output::is_terminal);
        let mut progress = Progress::begin(bytes, is_alone && is_watched(&output));
        let mut left_out = 0_u64;
        let header = match self.format {
            Format::Csv => Some(csv_header(&mut chunks, &name, &mut output, &mut progress)?),
            Format::Jsonl => None,
        };
        let mut on_done = |done: &Done, bytes: usize| {
            output.write(&done.bytes)?;
            for (line, error) in &done.left_out {
                left_out += 1;
                if let Some(errors) = &mut errors {
                    errors.write(&error_line(*line, error))?;
                }
            }
            progress.add(bytes, done.rows);
            Ok(())
        };
        match header {
            Some(header) => {
                let layout = CsvLayout::from_header(&header, &self.partition_field, &self.fields)
                    .map_err(|failure| failure.at(&name))?;
                let work = self.work(layout, direction, keys);
                pipeline::run(runtime, chunks, work, &name, &mut on_done)?;
            }
            None => {
                let layout = JsonLayout::new(&self.partition_field, &self.fields);
                let work = self.work(layout, direction, keys);
                pipeline::run(runtime, chunks, work, &name, &mut on_done)?;
            }
        }
        progress.end();
        // The list first: were it lost, nobody could tell that rows are missing from the output.
        if let Some(errors) = errors {
            errors.commit()?;
        }
        output.commit()?;
        let exit = if left_out == 0 { Exit::Done } else { self.report(left_out, &name) };
        Ok((exit, progress.rows()))
    }

    fn work<L: Layout>(&self, layout: L, direction: Direction, keys: &Keys) -> Work<L> {
        let (factory, kms) = (keys.factory.clone(), keys.kms.clone());
        Work { layout, direction, factory, kms, keep_going: self.errors.is_some() }
    }

    fn report(&self, left_out: u64, name: &str) -> Exit {
        let path = self.errors.as_deref().unwrap_or(Path::new("")).display();
        tell(format_args!("left out {} of {name}, listed in {path}", count(left_out, "row")));
        Exit::RowsLeftOut
    }
}

/// Copies what is before the header, and the header, and returns the header.
fn csv_header(
    chunks: &mut Chunks<Box<dyn std::io::Read + Send>>,
    name: &str,
    output: &mut Output,
    progress: &mut Progress,
) -> Result<Vec<u8>, Failure> {
    loop {
        let row = chunks.next_row(CsvLayout::row_len).map_err(|error| chunk_failure(name, &error))?;
        let Some(row) = row else {
            let message = format!("{name} has no header row; add one that names the columns");
            return Err(Failure::new(Exit::BadInput, message));
        };
        output.write(&row.bytes)?;
        progress.add(row.bytes.len(), 0);
        if !row.bytes.trim_ascii().is_empty() {
            return Ok(row.bytes);
        }
    }
}

/// A line of the errors file: where and why, never what.
fn error_line(line: u64, error: &RowError) -> Vec<u8> {
    let mut text = serde_json::json!({ "line": line, "reason": error.to_string() }).to_string();
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
