//! Singer messages, and the only way to stdout.
//!
//! stdout carries Singer messages and nothing else. The SCHEMA goes out before the first message that needs it, and
//! not before: a run that fails at its first request has written nothing.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::record::{Sink, on_one_line};
use crate::shape::Shape;

/// How much is gathered before it is written: what a pipe holds (Linux, pipe(7)).
const BUFFER: usize = 64 * 1024;

/// What a target has to know of a stream before its first record.
#[derive(Debug)]
pub struct Stream {
    /// The stream's name.
    pub name: String,
    /// Its JSON schema, passed on as it was written, on one line.
    pub schema: Box<RawValue>,
    /// The fields that tell its records apart.
    pub key_properties: Vec<String>,
    /// What is done to its records.
    pub shape: Shape,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "UPPERCASE")]
enum Message<'a> {
    Schema { stream: &'a str, schema: &'a RawValue, key_properties: &'a [String] },
    State { value: &'a Value },
}

/// The STATE message, without a line break.
///
/// # Errors
/// Never: a JSON value can be written as JSON.
pub fn state_message(value: &Value) -> serde_json::Result<String> {
    serde_json::to_string(&Message::State { value })
}

/// Writes the messages of one stream.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: BufWriter<W>,
    /// The SCHEMA message, until it is written.
    schema: Option<Vec<u8>>,
    /// A RECORD message up to its record.
    record_start: Vec<u8>,
    shape: Shape,
}

impl<W: Write> Writer<W> {
    /// Gets ready to write the stream's messages to `out`.
    ///
    /// # Errors
    /// When the stream's schema cannot be written as JSON.
    pub fn new(out: W, stream: Stream) -> Result<Writer<W>> {
        let Stream { name, schema, key_properties, shape } = stream;
        let schema = serde_json::to_string(&Message::Schema {
            stream: &name,
            schema: &schema,
            key_properties: &key_properties,
        })?;
        let mut schema = on_one_line(schema.as_bytes()).into_owned();
        schema.push(b'\n');
        let name = serde_json::to_string(&name)?;
        Ok(Writer {
            out: BufWriter::with_capacity(BUFFER, out),
            schema: Some(schema),
            record_start: format!(r#"{{"type":"RECORD","stream":{name},"record":"#).into_bytes(),
            shape,
        })
    }

    fn begin(&mut self) -> io::Result<()> {
        match self.schema.take() {
            Some(schema) => self.out.write_all(&schema),
            None => Ok(()),
        }
    }
}

impl<W: Write> Sink for Writer<W> {
    fn record(&mut self, json: &[u8]) -> io::Result<()> {
        let json = self.shape.apply(json)?;
        self.begin()?;
        self.out.write_all(&self.record_start)?;
        self.out.write_all(&json)?;
        self.out.write_all(b"}\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn state(&mut self, value: &Value) -> io::Result<()> {
        self.begin()?;
        writeln!(self.out, "{}", state_message(value)?)?;
        self.out.flush()
    }
}

/// Says what a failed write to stdout means.
pub fn unwritten(error: io::Error) -> anyhow::Error {
    let problem = match error.kind() {
        ErrorKind::BrokenPipe => "the target has ended: look at its own error",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "the disk behind stdout is full: make room"
        }
        ErrorKind::InvalidData => "a record cannot be written as the settings ask",
        _ => "cannot write to stdout",
    };
    anyhow::Error::new(error).context(format!("{problem}; what was not delivered stays unread, so run again then"))
}

/// The process's stdout, as a file of its own: `std::io::stdout` counts a write to a closed descriptor as done.
///
/// # Errors
/// When there is no stdout to write to.
pub fn stdout() -> Result<File> {
    let file = duplicate().context("open stdout")?;
    #[cfg(unix)]
    anyhow::ensure!(
        !is_stand_in(&file),
        "stdout is closed, or stands for nothing (/dev/null opened to read and write): records written there would be \
         lost; give the tap a stdout, as in `tap-streamduo -c config.json | target-x`"
    );
    Ok(file)
}

#[cfg(unix)]
fn duplicate() -> io::Result<File> {
    use std::os::fd::AsFd;
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}

#[cfg(windows)]
fn duplicate() -> io::Result<File> {
    use std::os::windows::io::AsHandle;
    io::stdout().as_handle().try_clone_to_owned().map(File::from)
}

/// Whether this is what Rust's runtime puts in place of a closed descriptor before `main`: /dev/null, opened to read
/// and write. A shell's `> /dev/null` is open to write only, and is the user's own wish.
#[cfg(unix)]
fn is_stand_in(file: &File) -> bool {
    use rustix::fs::{OFlags, fcntl_getfl, fstat, stat};
    let both_ways = fcntl_getfl(file).is_ok_and(|flags| flags.contains(OFlags::RDWR));
    both_ways
        && match (fstat(file), stat("/dev/null")) {
            (Ok(this), Ok(null)) => this.st_rdev == null.st_rdev && this.st_mode == null.st_mode,
            _ => false,
        }
}

/// Writes a line or a text of its own to stdout, such as the catalog.
///
/// # Errors
/// When it cannot be written.
pub fn print(text: &str) -> Result<()> {
    let mut out = stdout()?;
    writeln!(out, "{text}").context("write to stdout")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(write: impl FnOnce(&mut Writer<&mut Vec<u8>>)) -> String {
        let schema = RawValue::from_string(r#"{"type": "object", "n": 1.0}"#.to_owned()).unwrap();
        let stream = Stream {
            name: "a \"b\"".to_owned(),
            schema,
            key_properties: vec!["id".to_owned()],
            shape: Shape::default(),
        };
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, stream).unwrap();
        write(&mut writer);
        drop(writer);
        String::from_utf8(out).unwrap()
    }

    const SCHEMA: &str =
        r#"{"type":"SCHEMA","stream":"a \"b\"","schema":{"type": "object", "n": 1.0},"key_properties":["id"]}"#;

    #[test]
    fn nothing_is_written_before_the_first_message() {
        assert_eq!(written(|writer| writer.flush().unwrap()), "");
    }

    #[test]
    fn the_schema_comes_first_and_once() {
        let text = written(|writer| {
            writer.record(br#"{"x":1e400}"#).unwrap();
            writer.state(&json!({"bookmarks": {}})).unwrap();
            writer.record(b"{}").unwrap();
        });
        let record = r#"{"type":"RECORD","stream":"a \"b\"","record":"#;
        assert_eq!(
            text,
            format!(
                "{SCHEMA}\n{record}{{\"x\":1e400}}}}\n{}\n{record}{{}}}}\n",
                r#"{"type":"STATE","value":{"bookmarks":{}}}"#
            )
        );
    }
}
