//! What the files that the tap writes have in common.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use same_file::Handle;

/// The directory that a file is in.
pub fn directory(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Checks that a file can be made in a directory.
pub fn check_directory(directory: &Path) -> io::Result<()> {
    fs::metadata(directory)?;
    #[cfg(unix)]
    rustix::fs::access(directory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)?;
    Ok(())
}

/// Waits until the name of a new file is on the disk. Only on Unix: elsewhere no directory can be
/// opened.
pub fn sync_name(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory(path))?.sync_all() } else { Ok(()) }
}

/// Whether the first `end` bytes of a file end with a part of a line: a run that was killed, or a
/// full disk, may have left it.
pub fn is_cut(file: &mut File, end: u64) -> io::Result<bool> {
    let Some(before) = end.checked_sub(1) else { return Ok(false) };
    let mut last = [0];
    file.seek(SeekFrom::Start(before))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// Whether stdout or stderr goes to the file at a path.
pub fn is_behind(stream: io::Result<Handle>, path: &Path) -> bool {
    matches!((stream, Handle::from_path(path)), (Ok(stream), Ok(file)) if stream == file)
}
