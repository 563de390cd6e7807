//! Records that no target could load: without an identity, or with a time stamp that cannot be written as the settings ask. Each is
//! appended, as it came, to the file that `deadLetterFile` names, one JSON object a line. It counts as delivered once it is on the disk.
//!
//! A line may come twice: after a crash, or where a target has failed, the record is read again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use log::warn;
use serde::Serialize;
use serde_json::value::RawValue;

use super::transform::Unwritable;
use crate::config::{Config, Invalid};
use crate::metrics::records;
use crate::record::MessageWriter;

/// The file that `deadLetterFile` names cannot be written, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error(
    "put a record aside in `deadLetterFile` {path}: {error}; what was not delivered stays unread, so mend that and run again"
)]
pub struct CannotPutAside {
    path: String,
    error: io::Error,
}

/// A line of the file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeadLetter<'a> {
    /// When the record's page arrived (RFC 3339, UTC).
    time: &'a str,
    stream_id: &'a str,
    /// Why it could not be delivered.
    reason: &'a str,
    /// The record, as it came.
    record: &'a RawValue,
}

/// The file that `deadLetterFile` names.
#[derive(Debug)]
struct DeadLetterFile {
    path: PathBuf,
    file: File,
}

impl DeadLetterFile {
    /// Opens the file, and makes it if there is none.
    fn open(path: &Path) -> Result<DeadLetterFile, Invalid> {
        let invalid = |problem: String| Invalid::new(format!("`deadLetterFile` {}: {problem}", path.display()));
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(invalid("it is no file, and what is written there may not be kept".to_owned()));
        }
        let file = open(path).map_err(|error| invalid(format!("open the file: {error}")))?;
        Ok(DeadLetterFile { path: path.to_owned(), file })
    }

    fn append(&mut self, letter: &DeadLetter<'_>) -> io::Result<()> {
        let mut line = serde_json::to_vec(letter)?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|error| self.failure(error))
    }

    /// Waits until everything is on the disk.
    fn sync(&self) -> io::Result<()> {
        self.file.sync_all().map_err(|error| self.failure(error))
    }

    fn failure(&self, error: io::Error) -> io::Error {
        io::Error::other(CannotPutAside { path: self.path.display().to_string(), error })
    }
}

/// Opens a file to append lines to.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Records are private.
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    // A run that was killed, or a full disk, may have left a line without an end.
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    sync_directory(path)?;
    Ok(file)
}

/// Waits until a new file's name is on the disk.
#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Does nothing: a directory cannot be opened here.
#[cfg(not(unix))]
fn sync_directory(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Where records go that no target could load.
#[derive(Debug)]
pub struct DeadLetters {
    stream_id: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// Nowhere: they end the run.
    None,
    /// Nowhere: they are left out where records are only looked at.
    LeftOut,
    File(DeadLetterFile),
}

impl DeadLetters {
    /// Opens the file that `deadLetterFile` names, if it names one.
    ///
    /// # Errors
    /// [`Invalid`] when the file cannot be opened.
    pub fn open(config: &Config) -> Result<DeadLetters, Invalid> {
        let place = match &config.dead_letter_file {
            Some(path) => Place::File(DeadLetterFile::open(path)?),
            None => Place::None,
        };
        Ok(DeadLetters { stream_id: config.stream_id.clone(), place })
    }

    /// For a look: such records are left out, and the file is not touched.
    pub fn left_out(config: &Config) -> DeadLetters {
        let place = if config.dead_letter_file.is_some() { Place::LeftOut } else { Place::None };
        DeadLetters { stream_id: config.stream_id.clone(), place }
    }

    /// A writer that hands messages on to this one, and takes the records that this one cannot write.
    pub fn around(self, writer: Box<dyn MessageWriter>) -> Box<dyn MessageWriter> {
        match self.place {
            Place::None => writer,
            _ => Box::new(DeadLetterWriter { writer, dead_letters: self, put_aside: 0, since_flush: None }),
        }
    }

    /// Appends a record to the file, if there is one.
    fn append(&mut self, json: &[u8], reason: &str, time: &str) -> io::Result<()> {
        let Place::File(file) = &mut self.place else { return Ok(()) };
        let record = serde_json::from_slice(json)?;
        file.append(&DeadLetter { time, stream_id: &self.stream_id, reason, record })
    }

    /// Waits until the last `count` records are on the disk, and warns of them. `reason` is that of the first one.
    fn sync(&self, count: usize, reason: &str) -> io::Result<()> {
        let (records, is) = (records(count), if count == 1 { "is" } else { "are" });
        let first = if count == 1 { "" } else { "the first one: " };
        if let Place::File(file) = &self.place {
            file.sync()?;
            let path = file.path.display();
            warn!("{records} cannot be delivered, and {is} put aside in {path}: {first}{reason}");
        } else {
            warn!("{records} cannot be shown, and {is} left out: {first}{reason}");
        }
        Ok(())
    }
}

/// Puts aside what the writer within it cannot write.
struct DeadLetterWriter {
    writer: Box<dyn MessageWriter>,
    dead_letters: DeadLetters,
    put_aside: usize,
    /// How many records were put aside since the last flush, and why the first one was.
    since_flush: Option<(usize, String)>,
}

impl DeadLetterWriter {
    fn add(&mut self, json: &[u8], reason: &str, time: &str) -> io::Result<()> {
        self.dead_letters.append(json, reason, time)?;
        self.put_aside += 1;
        self.since_flush.get_or_insert_with(|| (0, reason.to_owned())).0 += 1;
        Ok(())
    }
}

impl MessageWriter for DeadLetterWriter {
    fn record(&mut self, json: &[u8], time_extracted: &str) -> io::Result<()> {
        let written = self.writer.record(json, time_extracted);
        let error = written.as_ref().err().and_then(io::Error::get_ref);
        match error.and_then(|error| error.downcast_ref::<Unwritable>()) {
            Some(Unwritable { reason }) => self.add(json, reason, time_extracted),
            None => written,
        }
    }

    fn odd_record(&mut self, json: &[u8], reason: &str, time_extracted: &str) -> io::Result<()> {
        self.add(json, reason, time_extracted)
    }

    fn put_aside(&self) -> usize {
        self.put_aside
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some((count, reason)) = self.since_flush.take() {
            self.dead_letters.sync(count, &reason)?;
        }
        self.writer.flush()
    }

    fn state(&mut self, value: &RawValue) -> io::Result<()> {
        self.writer.state(value)
    }

    fn close(&mut self) {
        self.writer.close();
    }
}
