//! Records that no target could load: one without an identity, one with a time stamp that cannot be
//! written as the settings ask, one that makes the target fail. Each is appended, as it came, to
//! the file that `deadLetterFile` names, one JSON object a line. It counts as delivered once it is
//! on the disk.
//!
//! A line may come twice: after a crash, or if a target has failed, the record is read again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::mem::take;
use std::path::{Path, PathBuf};

use log::warn;
use same_file::Handle;
use serde_json::value::RawValue;

use super::files::{check_replaceable, is_behind, is_cut, sync_name};
use super::transform::Unwritable;
use crate::config::{Config, Invalid};
use crate::metrics::{plural, records};
use crate::record::{MessageWriter, Page};

/// The file that `deadLetterFile` names cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot put {} aside in `deadLetterFile` {}: {error}", records(*.count), .path.display())]
pub struct CannotPutAside {
    /// How many records are not in it, or perhaps in part.
    pub count: usize,
    path: PathBuf,
    error: io::Error,
}

/// Puts aside what the writer behind it cannot write.
pub struct DeadLetters {
    writer: Box<dyn MessageWriter>,
    stream_id: String,
    /// Where they go; `None` if records are only shown: then these are left out.
    path: Option<PathBuf>,
    /// How many were put aside or left out.
    put_aside: usize,
    /// What the next flush appends: why each record is put aside, and its line.
    waiting: Vec<(String, String)>,
}

impl DeadLetters {
    /// The writer itself, or, if `deadLetterFile` names a file, with this around it. Unless it
    /// `delivers`, it touches no file.
    pub fn around(writer: Box<dyn MessageWriter>, config: &Config, delivers: bool) -> Box<dyn MessageWriter> {
        let Some(path) = config.dead_letter_file.clone() else { return writer };
        Box::new(DeadLetters {
            writer,
            stream_id: config.stream_id.clone(),
            path: delivers.then_some(path),
            put_aside: 0,
            waiting: Vec::new(),
        })
    }

    /// Appends what is waiting to the file, waits until it is on the disk, and warns of it.
    fn append(&mut self) -> io::Result<()> {
        let waiting = take(&mut self.waiting);
        let count = waiting.len();
        let Some((reason, _)) = waiting.first() else { return Ok(()) };
        let is = plural(count, "is", "are");
        let first = plural(count, "", "the first one: ");
        let records = records(count);
        if let Some(path) = &self.path {
            append(path, waiting.iter().map(|(_, line)| line.as_str()).collect())
                .map_err(|error| io::Error::other(CannotPutAside { count, path: path.clone(), error }))?;
            let path = path.display();
            warn!("{records} cannot be delivered, and {is} put aside in {path}: {first}{reason}");
        } else {
            warn!("{records} cannot be shown, and {is} left out: {first}{reason}");
        }
        self.put_aside += count;
        Ok(())
    }
}

impl MessageWriter for DeadLetters {
    fn record(&mut self, json: &[u8], time_extracted: &str) -> io::Result<()> {
        let written = self.writer.record(json, time_extracted);
        let error = written.as_ref().err().and_then(io::Error::get_ref);
        if let Some(Unwritable { reason }) = error.and_then(|error| error.downcast_ref()) {
            return self.dead_letter(json, reason, time_extracted);
        }
        if written.is_err() {
            // No flush comes any more. What the page holds may be marked already; ignore a second
            // error.
            let _ = self.append();
        }
        written
    }

    fn dead_letter(&mut self, json: &[u8], reason: &str, time_extracted: &str) -> io::Result<()> {
        let record: &RawValue = serde_json::from_slice(json)?;
        let stream_id = serde_json::to_string(&self.stream_id)?;
        let why = serde_json::to_string(reason)?;
        // A time stamp holds nothing that JSON escapes.
        let line = format!(
            "{{\"time\":\"{time_extracted}\",\"streamId\":{stream_id},\"reason\":{why},\"record\":{record}}}\n"
        );
        self.waiting.push((reason.to_owned(), line));
        Ok(())
    }

    fn dead_letters(&self) -> usize {
        self.put_aside
    }

    fn look_ahead(&mut self, page: &Page) {
        self.writer.look_ahead(page);
    }

    fn with_rest(&self) -> usize {
        self.writer.with_rest()
    }

    fn flush(&mut self) -> io::Result<()> {
        let appended = self.append();
        // Also if that has failed: the other records of the page may be marked already.
        self.writer.flush()?;
        appended
    }

    fn state(&mut self, value: &RawValue) -> io::Result<()> {
        self.writer.state(value)
    }

    fn close(&mut self) {
        self.writer.close();
    }
}

/// Checks that records can be put aside, if `deadLetterFile` names a file. Makes no file.
pub fn check(config: &Config) -> Result<(), Invalid> {
    let Some(path) = &config.dead_letter_file else { return Ok(()) };
    let checked = match open(path, false) {
        Err(error) if error.kind() == ErrorKind::NotFound => check_replaceable(path),
        Err(error) => Err(io::Error::other(format!("{error}; name a file that can be appended to"))),
        Ok(_) => Ok(()),
    };
    checked.map_err(|error| Invalid::new(format!("`deadLetterFile` {}: {error}", path.display())))
}

/// Appends whole lines to a file, and waits until they are on the disk. The file is opened each
/// time, for it may have been moved or deleted, and locked, for other runs may share it.
fn append(path: &Path, mut lines: String) -> io::Result<()> {
    let mut file = open(path, true)?;
    file.lock()?;
    let end = file.metadata()?.len();
    if is_cut(&mut file, end)? {
        lines.insert(0, '\n');
    }
    file.write_all(lines.as_bytes())?;
    file.sync_all()?;
    // The lock ends with the file.
    sync_name(path)
}

/// Opens a file to append to, unless what is written there may not be kept.
fn open(path: &Path, create: bool) -> io::Result<File> {
    if let Ok(metadata) = fs::metadata(path) {
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file, and what is written there may not be kept"));
        }
        #[cfg(unix)]
        if is_behind(Handle::stdout(), path) || is_behind(Handle::stderr(), path) {
            let problem = "it is the file behind stdout or stderr, and what is written there may be overwritten";
            return Err(io::Error::other(problem));
        }
    }
    let mut options = OpenOptions::new();
    // Records are private.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.read(true).append(true).create(create).open(path)
}
