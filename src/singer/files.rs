//! What the files that the tap writes have in common.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use same_file::Handle;

/// The directory that a file is in.
fn directory(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The file that a path leads to, be it by way of links, and even if it is still to be made.
fn resolved(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    // No system follows more than 40.
    for _ in 0..40 {
        let Ok(link) = fs::read_link(&path) else { break };
        path = path.with_file_name(link);
    }
    let absolute = || Some(fs::canonicalize(directory(&path)).ok()?.join(path.file_name()?));
    fs::canonicalize(&path).ok().or_else(absolute).unwrap_or(path)
}

/// Whether two paths lead to one file, even if it is still to be made.
pub fn are_same(one: &Path, other: &Path) -> bool {
    let are_regular = one.is_file() && other.is_file();
    resolved(one) == resolved(other) || are_regular && same_file::is_same_file(one, other).unwrap_or_default()
}

/// Checks that a file can be replaced, or made. Makes none.
///
/// # Errors
/// Why not, and what to do about it.
pub fn check_replaceable(path: &Path) -> io::Result<()> {
    if path.exists() && !path.is_file() {
        return Err(io::Error::other("it is not a regular file: name another one"));
    }
    let path = resolved(path);
    let directory = directory(&path);
    let checked = fs::metadata(directory).map(drop);
    #[cfg(unix)]
    let checked = checked.and_then(|()| {
        use rustix::fs::{Access, access};
        Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
    });
    checked.map_err(|error| {
        io::Error::other(format!(
            "no file can be made in {}: {error}; make that folder writable, or name a file in another one",
            directory.display()
        ))
    })
}

/// Puts a new text in the place of a file, or makes one, at once and on the disk. Links, owner and
/// permissions stay. A crash or a full disk leaves the old file or the new one, and perhaps a
/// hidden one beside it, which the next run takes away.
pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let path = resolved(path);
    let new = path.with_file_name(format!(".{}.new", path.file_name().unwrap_or_default().display()));
    // Ignore the error: as a rule there is none. It is not opened, for it may be somebody's link.
    let _ = fs::remove_file(&new);
    write_like(&path, &new, text)?;
    fs::rename(&new, &path)?;
    sync_name(&path)
}

/// Makes a file with the owner and the permissions of an old one, if there is one.
fn write_like(old: &Path, new: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(new)?;
    if let Ok(old) = fs::metadata(old) {
        file.set_permissions(old.permissions())?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt, fchown};
            // Ignore the error: only root can give a file away, and for others it is their own.
            let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
        }
    }
    file.write_all(text)?;
    file.sync_all()
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
