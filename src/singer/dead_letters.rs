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

/// The file that `deadLetterFile` names cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("put {} aside in `deadLetterFile` {}: {error}", records(*.count), .path.display())]
pub struct CannotPutAside {
    /// How many records are not in it, or perhaps in part.
    pub count: usize,
    path: PathBuf,
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
    /// The file that `deadLetterFile` names.
    File(PathBuf),
}

impl DeadLetters {
    /// Opens the file that `deadLetterFile` names, if it names one, to see whether that works.
    ///
    /// # Errors
    /// [`Invalid`] when the file cannot be opened.
    pub fn open(config: &Config) -> Result<DeadLetters, Invalid> {
        let place = match &config.dead_letter_file {
            Some(path) => {
                let unusable = |error| {
                    let path = path.display();
                    Invalid::new(format!("`deadLetterFile` {path}: {error}; name a file that can be appended to"))
                };
                open(path).map_err(unusable)?;
                Place::File(path.clone())
            }
            None => Place::None,
        };
        Ok(DeadLetters { stream_id: config.stream_id.clone(), place })
    }

    /// Touches no file: where records are only looked at, nothing is delivered.
    pub fn left_out(config: &Config) -> DeadLetters {
        let place = if config.dead_letter_file.is_some() { Place::LeftOut } else { Place::None };
        DeadLetters { stream_id: config.stream_id.clone(), place }
    }

    /// The writer, with this around it for what it cannot write.
    pub fn around(self, writer: Box<dyn MessageWriter>) -> Box<dyn MessageWriter> {
        match self.place {
            Place::None => writer,
            _ => Box::new(DeadLetterWriter { writer, dead_letters: self, put_aside: 0, waiting: Waiting::default() }),
        }
    }
}

/// Puts aside what the writer behind it cannot write.
struct DeadLetterWriter {
    writer: Box<dyn MessageWriter>,
    dead_letters: DeadLetters,
    put_aside: usize,
    waiting: Waiting,
}

/// The records to put aside with the next flush.
#[derive(Debug, Default)]
struct Waiting {
    count: usize,
    /// Why the first one is.
    reason: String,
    /// Their lines.
    lines: Vec<u8>,
}

impl DeadLetterWriter {
    fn add(&mut self, json: &[u8], reason: &str, time: &str) -> io::Result<()> {
        let Waiting { count, reason: first, lines } = &mut self.waiting;
        let record = serde_json::from_slice(json)?;
        serde_json::to_writer(
            &mut *lines,
            &DeadLetter { time, stream_id: &self.dead_letters.stream_id, reason, record },
        )?;
        lines.push(b'\n');
        if *count == 0 {
            reason.clone_into(first);
        }
        *count += 1;
        Ok(())
    }

    /// Appends what is waiting to the file, waits until it is on the disk, and warns of it.
    fn append(&mut self) -> io::Result<()> {
        let Waiting { count, reason, lines } = std::mem::take(&mut self.waiting);
        if count == 0 {
            return Ok(());
        }
        let (records, is) = (records(count), if count == 1 { "is" } else { "are" });
        let first = if count == 1 { "" } else { "the first one: " };
        if let Place::File(path) = &self.dead_letters.place {
            append(path, &lines)
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

impl MessageWriter for DeadLetterWriter {
    fn record(&mut self, json: &[u8], time_extracted: &str) -> io::Result<()> {
        let written = self.writer.record(json, time_extracted);
        let error = written.as_ref().err().and_then(io::Error::get_ref);
        match error.and_then(|error| error.downcast_ref::<Unwritable>()) {
            Some(Unwritable { reason }) => self.add(json, reason, time_extracted),
            None => {
                if written.is_err() {
                    // No flush comes any more. What the page holds may be marked already; ignore a second error.
                    let _ = self.append();
                }
                written
            }
        }
    }

    fn odd_record(&mut self, json: &[u8], reason: &str, time_extracted: &str) -> io::Result<()> {
        self.add(json, reason, time_extracted)
    }

    fn put_aside(&self) -> usize {
        self.put_aside
    }

    fn flush(&mut self) -> io::Result<()> {
        let appended = self.append();
        // Also where that has failed: the other records of the page may be marked already.
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

/// Appends lines to a file, and waits until they are on the disk. The file is opened each time: meanwhile it may have been moved or
/// deleted, and another run may have left a line without an end.
fn append(path: &Path, lines: &[u8]) -> io::Result<()> {
    let mut file = open(path)?;
    file.write_all(lines)?;
    file.sync_all()
}

/// Opens a file to append lines to, and makes it if there is none.
fn open(path: &Path) -> io::Result<File> {
    check(path).map_err(io::Error::other)?;
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

/// Whether what is written to a file is kept.
///
/// # Errors
/// Why it is not.
fn check(path: &Path) -> Result<(), &'static str> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    if !metadata.is_file() {
        return Err("it is no file, and what is written there may not be kept");
    }
    if is_written_otherwise(&metadata) {
        return Err("it is the file behind stdout or stderr, and what is written there may be overwritten");
    }
    Ok(())
}

/// Whether stdout or stderr goes to this file.
#[cfg(unix)]
fn is_written_otherwise(file: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let is_same = |other: rustix::fs::Stat| (other.st_dev, other.st_ino) == (file.dev(), file.ino());
    rustix::fs::fstat(io::stdout()).is_ok_and(is_same) || rustix::fs::fstat(io::stderr()).is_ok_and(is_same)
}

/// Whether stdout or stderr goes to this file. It cannot be told here.
#[cfg(not(unix))]
fn is_written_otherwise(_file: &fs::Metadata) -> bool {
    false
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
