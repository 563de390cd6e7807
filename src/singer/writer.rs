//! Singer messages. The SCHEMA goes out right before the first message that needs it, so a run that
//! fails at its first request has written nothing.

use std::io::{self, BufWriter, Write};
use std::rc::Rc;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::transform::Transform;
use crate::record::{MessageWriter, Page};

/// How much is gathered before it is written: what a pipe holds (Linux, pipe(7)).
const BUFFER: usize = 64 * 1024;

/// What a target has to know of a stream before its first record.
#[derive(Debug)]
pub struct Stream {
    /// The stream's name.
    pub name: String,
    /// The JSON schema of its records; the columns of their payload are added when a target starts.
    pub schema: Value,
    /// The fields that tell its records apart.
    pub key_properties: Vec<String>,
    /// What is done to its records.
    pub transform: Transform,
}

/// The STATE message of a value that is on one line.
pub fn state_message(value: &RawValue) -> String {
    format!(r#"{{"type":"STATE","value":{value}}}"#)
}

/// Writes the messages of one stream: to stdout, or to one target after the other.
pub struct Writer<W: Write> {
    /// Opens the way to the next target.
    open: Box<dyn FnMut() -> io::Result<W>>,
    /// The way to the target at hand; `None` until it gets a message.
    out: Option<BufWriter<W>>,
    stream: Stream,
    /// What is still to be written of the SCHEMA message: `None` until it is made, empty once it is
    /// written.
    schema: Option<String>,
    /// A RECORD message up to its record.
    record_start: Rc<str>,
}

impl<W: Write> Writer<W> {
    /// Gets ready to write the stream's messages to what `open` opens.
    pub fn new(open: impl FnMut() -> io::Result<W> + 'static, stream: Stream) -> Writer<W> {
        let record_start = format!(r#"{{"type":"RECORD","stream":{},"record":"#, json!(stream.name));
        Writer { open: Box::new(open), out: None, stream, schema: None, record_start: record_start.into() }
    }

    /// Makes the SCHEMA, unless that is done. It adds columns, so this comes before the first record
    /// is transformed.
    fn make_schema(&mut self) {
        let Stream { name, schema, key_properties, transform } = &mut self.stream;
        self.schema.get_or_insert_with(|| {
            let mut schema = schema.clone();
            if let Some(splitter) = &mut transform.splitter {
                splitter.start(&mut schema);
            }
            let message = json!({"type": "SCHEMA", "stream": name, "schema": schema, "key_properties": key_properties});
            format!("{message}\n")
        });
    }

    /// The way out, behind the SCHEMA.
    fn out(&mut self) -> io::Result<&mut BufWriter<W>> {
        self.make_schema();
        let out = match &mut self.out {
            Some(out) => out,
            none => none.insert(BufWriter::with_capacity(BUFFER, (self.open)()?)),
        };
        out.write_all(self.schema.as_mut().map(std::mem::take).unwrap_or_default().as_bytes())?;
        Ok(out)
    }
}

impl<W: Write> MessageWriter for Writer<W> {
    fn look_ahead(&mut self, page: &Page) {
        if self.schema.is_none()
            && let Some(splitter) = &mut self.stream.transform.splitter
        {
            splitter.look_ahead(page);
        }
    }

    fn with_rest(&self) -> usize {
        self.stream.transform.splitter.as_ref().map_or(0, |splitter| splitter.with_rest)
    }

    fn record(&mut self, json: &[u8], time_extracted: &str) -> io::Result<()> {
        self.make_schema();
        let json = self.stream.transform.apply(json)?;
        let record_start = Rc::clone(&self.record_start);
        // The SCHEMA goes out with the first record that can be written.
        let out = self.out()?;
        out.write_all(record_start.as_bytes())?;
        out.write_all(&json)?;
        out.write_all(br#","time_extracted":""#)?;
        // A time stamp holds nothing that JSON escapes.
        out.write_all(time_extracted.as_bytes())?;
        out.write_all(b"\"}\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), Write::flush)
    }

    fn state(&mut self, value: &RawValue) -> io::Result<()> {
        writeln!(self.out()?, "{}", state_message(value))?;
        self.flush()
    }

    fn close(&mut self) {
        self.out = None;
        self.schema = None;
    }
}

#[cfg(test)]
mod tests {
    use std::io::PipeWriter;

    use super::*;

    fn written(write: impl FnOnce(&mut Writer<PipeWriter>)) -> String {
        let schema = serde_json::json!({"type": "object", "n": 1.0});
        let stream = Stream {
            name: "a \"b\"".to_owned(),
            schema,
            key_properties: vec!["id".to_owned()],
            transform: Transform::default(),
        };
        let (mut out, input) = io::pipe().unwrap();
        let mut writer = Writer::new(move || input.try_clone(), stream);
        write(&mut writer);
        drop(writer);
        io::read_to_string(&mut out).unwrap()
    }

    const SCHEMA: &str =
        r#"{"type":"SCHEMA","stream":"a \"b\"","schema":{"type":"object","n":1.0},"key_properties":["id"]}"#;

    #[test]
    fn nothing_is_written_before_the_first_message() {
        assert_eq!(written(|writer| writer.flush().unwrap()), "");
    }

    #[test]
    fn the_schema_is_not_lost_with_a_target_that_cannot_be_started() {
        let (mut out, input) = io::pipe().unwrap();
        let mut may_start = false;
        let open = move || {
            if std::mem::replace(&mut may_start, true) {
                input.try_clone()
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        };
        let stream =
            Stream { name: "a".to_owned(), schema: json!({}), key_properties: vec![], transform: Transform::default() };
        let mut writer = Writer::new(open, stream);
        let state = RawValue::from_string("{}".to_owned()).unwrap();
        assert!(writer.state(&state).is_err());
        writer.state(&state).unwrap();
        drop(writer);
        let schema = r#"{"type":"SCHEMA","stream":"a","schema":{},"key_properties":[]}"#;
        assert_eq!(io::read_to_string(&mut out).unwrap(), format!("{schema}\n{}\n", state_message(&state)));
    }

    #[test]
    fn each_target_gets_the_schema() {
        let text = written(|writer| {
            for _ in 0..2 {
                writer.state(&RawValue::from_string("{}".to_owned()).unwrap()).unwrap();
                writer.close();
            }
        });
        assert_eq!(text, format!("{SCHEMA}\n{{\"type\":\"STATE\",\"value\":{{}}}}\n").repeat(2));
    }

    #[test]
    fn the_schema_comes_first_and_once() {
        let text = written(|writer| {
            writer.record(br#"{"x":1e400}"#, "2022-02-01T20:16:23.716848Z").unwrap();
            writer.state(&RawValue::from_string(r#"{"bookmarks":{}}"#.to_owned()).unwrap()).unwrap();
            writer.record(b"{}", "2022-02-01T20:16:24.000000Z").unwrap();
        });
        let record = r#"{"type":"RECORD","stream":"a \"b\"","record":"#;
        assert_eq!(
            text,
            format!(
                "{SCHEMA}\n{record}{{\"x\":1e400}},{}\n{}\n{record}{{}},{}\n",
                r#""time_extracted":"2022-02-01T20:16:23.716848Z"}"#,
                r#"{"type":"STATE","value":{"bookmarks":{}}}"#,
                r#""time_extracted":"2022-02-01T20:16:24.000000Z"}"#
            )
        );
    }
}
