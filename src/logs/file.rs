//! One log file: whole batches appended, byte for byte.
//!
//! A line is never torn: neither by another stream's line in its middle, nor by a disk that was full for a
//! while. What a full disk cannot take is dropped and counted; once there is room again, the rest of the
//! line that was being written comes first, then one line that says how many are missing. Refuses to wait,
//! to keep more than one line, and to retry by itself. A rotation renames the file and begins a new one: what was
//! written is never copied, and no other file is ever replaced.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use memchr::{memchr, memchr_iter};
use nix::errno::Errno;

use super::lines::LINE_LIMIT;
use super::rotation::{ATTEMPTS, COMPRESSED, Growth, Mark};
use crate::control::protocol::Stream;
use crate::supervisor::event::WorkerId;
use crate::sys::behalf::Behalf;
use crate::sys::output::{OpenError, append, open_append};
use crate::sys::rotate::{self, Regular};

/// Which stream bytes belong to: lines of different ones are kept apart.
pub type Source = (WorkerId, Stream);

/// What changed with a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing worth telling.
    None,
    /// From now on lines are dropped.
    Failed(Errno),
    /// It works again; so many lines are missing, and the file says so.
    Resumed {
        /// Lines that were dropped.
        lines: u64,
        /// Why.
        error: Errno,
    },
}

/// Stands for a disk that took nothing for so long that memory was full: no write to a file answers that.
const TOO_LATE: Errno = Errno::ENOBUFS;

/// What is missing in the file.
#[derive(Clone, Copy, Debug)]
struct Gap {
    /// Lines dropped since it failed.
    lines: u64,
    /// How many of them no notice in the file counts yet.
    untold: u64,
    error: Errno,
}

/// A file that is appended to. `/dev/null` and the like are no [`LogFile`] at all.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    /// Everything that goes by the path is done with these rights.
    behalf: Behalf,
    fd: OwnedFd,
    gap: Option<Gap>,
    /// What must be written before anything else: the rest of a line, or of a notice, of which the file
    /// has the beginning. At most [`LINE_LIMIT`] bytes.
    pending: Vec<u8>,
    /// Whose line the file ends in the middle of.
    open_line: Option<Source>,
    /// Which file it is, and its length; none for devices and pipes, which have none and are never rotated.
    regular: Option<Regular>,
    /// What the latest old file was called.
    mark: Option<Mark>,
    /// Each of its lines is an object of JSON, also ours.
    json: bool,
}

impl LogFile {
    /// One that was opened elsewhere.
    pub fn opened(fd: OwnedFd, path: PathBuf, behalf: Behalf, regular: Option<Regular>) -> LogFile {
        let (gap, pending, open_line) = (None, Vec::new(), None);
        LogFile { path, behalf, fd, gap, pending, open_line, regular, mark: None, json: false }
    }

    /// Opens the file for appending; its folders are made.
    pub fn open(path: &Path) -> Result<LogFile, OpenError> {
        LogFile::open_for(path, Behalf::default())
    }

    /// The same with the rights of somebody else.
    pub fn open_for(path: &Path, behalf: Behalf) -> Result<LogFile, OpenError> {
        let fd = open_for(path, &behalf)?;
        let regular = opened(&fd);
        Ok(LogFile::opened(fd, path.to_owned(), behalf, regular))
    }

    /// With whose rights the path is handled.
    pub fn behalf(&self) -> &Behalf {
        &self.behalf
    }

    /// With whose rights it is handled from now on.
    pub fn set_behalf(&mut self, behalf: Behalf) {
        self.behalf = behalf;
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor, to be handed over.
    pub fn into_descriptor(self) -> OwnedFd {
        self.fd
    }

    /// Lines are being dropped.
    pub fn is_failing(&self) -> bool {
        self.gap.is_some()
    }

    /// Opens the path anew, after somebody renamed or deleted the file. On an error the old file stays.
    pub fn reopen(&mut self) -> Result<(), OpenError> {
        self.fd = open_for(&self.path, &self.behalf)?;
        self.regular = opened(&self.fd);
        self.pending = Vec::new();
        self.open_line = None;
        Ok(())
    }

    /// Whether its lines are objects of JSON.
    pub fn set_json(&mut self, json: bool) {
        self.json = json;
    }

    /// Which file it is; none for devices and pipes.
    pub fn regular(&self) -> Option<Regular> {
        self.regular
    }

    /// What a decision about a rotation needs; none where there can be none.
    pub fn growth(&self, more: u64, is_old: bool) -> Option<Growth> {
        let mid_line = self.open_line.is_some() || !self.pending.is_empty();
        self.regular.map(|regular| Growth { size: regular.len, more, mid_line, is_old })
    }

    /// Finds out whether somebody renamed, removed or truncated the file, and goes on with the one that belongs
    /// at the path. On an error the old file stays.
    pub fn look(&mut self) -> Result<(), OpenError> {
        let found = self.behalf.begin().and_then(|_guise| rotate::named(&self.path));
        let (Some(ours), Ok(found)) = (&mut self.regular, found) else { return Ok(()) };
        match found {
            Some(found) if found.identity == ours.identity => {
                ours.len = found.len;
                Ok(())
            }
            Some(_) | None => self.reopen(),
        }
    }

    /// Gives the file another name, says of what time it is, and begins a new one; returns where it was. One that
    /// somebody else renamed is left to them. On an error the old file stays.
    ///
    /// # Errors
    /// When the folder takes no other name or no new file.
    pub fn rotate(&mut self, wall: Duration) -> io::Result<PathBuf> {
        let _guise = self.behalf.begin()?;
        let Ok(path) = rotate::real(&self.path) else {
            self.look().map_err(io::Error::other)?;
            return Ok(self.path.clone());
        };
        let found = rotate::named(&path)?.map(|found| found.identity);
        if found != self.regular.map(|ours| ours.identity) {
            self.look().map_err(io::Error::other)?;
            return Ok(path);
        }
        let old = self.step_aside(&path, wall)?;
        match open_append(&self.path) {
            Ok(fd) => {
                // A new file that others may not read is better than none.
                let _ = rotate::inherit(fd.as_fd(), self.fd.as_fd());
                self.regular = opened(&fd);
                self.fd = fd;
                Ok(path)
            }
            Err(error) => {
                rotate::rename_new(&old, &path)?;
                Err(io::Error::other(error))
            }
        }
    }

    /// Renames the file to a name that says when, and that nothing has.
    fn step_aside(&mut self, path: &Path, wall: Duration) -> io::Result<PathBuf> {
        let base = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidFilename)?;
        for _ in 0..ATTEMPTS {
            let mark = Mark::after(self.mark, wall);
            self.mark = Some(mark);
            let name = mark.name(base);
            let is_taken = exists(&path.with_file_name(format!("{name}{COMPRESSED}")));
            let old = path.with_file_name(name);
            if is_taken {
                continue;
            }
            match rotate::rename_new(path, &old) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                outcome => return outcome.map(|()| old),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Empties the file at a path that is not open; one that is not there, or is no regular one, is left alone.
    ///
    /// # Errors
    /// When it cannot be opened, or the file system refuses.
    pub fn empty_at(path: &Path, behalf: Behalf) -> io::Result<()> {
        let found = behalf.begin().and_then(|_guise| rotate::named(path))?;
        match found {
            Some(_) => LogFile::open_for(path, behalf).map_err(io::Error::other)?.empty(),
            None => Ok(()),
        }
    }

    /// Empties it. What devices and pipes took is gone already.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn empty(&mut self) -> io::Result<()> {
        let Some(regular) = &mut self.regular else { return Ok(()) };
        rotate::empty(self.fd.as_fd())?;
        regular.len = 0;
        self.open_line = None;
        // Of a line that is gone.
        self.pending = Vec::new();
        Ok(())
    }

    fn grow(&mut self, written: usize) {
        if let Some(regular) = &mut self.regular {
            regular.len += written as u64;
        }
    }

    /// Appends the parts, one after the other, in one call. They are whole pieces of one stream; empty
    /// ones only try to make up for what is missing.
    pub fn write(&mut self, source: Source, parts: [&[u8]; 2]) -> Turn {
        let before = self.gap;
        if before.is_none() && parts.iter().all(|part| part.is_empty()) {
            return Turn::None;
        }
        if let Err(error) = self.catch_up(source) {
            self.lose(error, parts);
            return if before.is_none() { Turn::Failed(error) } else { Turn::None };
        }
        let (written, outcome) = append_all(&self.fd, parts);
        self.grow(written);
        let rest = skip(parts, written);
        if let Some(last) = last_written(parts, written) {
            self.open_line = (last != b'\n').then_some(source);
        }
        match (outcome, before) {
            (Ok(()), None) => Turn::None,
            (Ok(()), Some(gap)) => Turn::Resumed { lines: gap.lines, error: gap.error },
            (Err(error), _) => {
                self.gap = before.map(|gap| Gap { untold: 0, ..gap });
                let rest = if self.open_line == Some(source) { self.keep_line(rest) } else { rest };
                self.lose(error, rest);
                if before.is_none() { Turn::Failed(error) } else { Turn::None }
            }
        }
    }

    /// Counts the parts as dropped without trying to write them.
    pub fn drop_batch(&mut self, parts: [&[u8]; 2]) {
        if let Some(Gap { error, .. }) = self.gap {
            self.lose(error, parts);
        }
    }

    /// Writes what must stand before the next batch of `source`: the rest of a torn line, the end of
    /// another stream's line, the notice of missing lines. Afterwards nothing is missing.
    fn catch_up(&mut self, source: Source) -> Result<(), Errno> {
        self.write_pending()?;
        let untold = self.gap.map_or(0, |gap| gap.untold);
        let mut lead = String::new();
        if self.open_line.is_some_and(|open| open != source || untold > 0) {
            lead.push('\n');
        }
        if let Some(gap) = self.gap.filter(|gap| gap.untold > 0) {
            lead += &notice(gap.untold, gap.error, self.json);
        }
        let (written, outcome) = append_all(&self.fd, [lead.as_bytes(), &[]]);
        self.grow(written);
        if written > 0 {
            self.open_line = if written == lead.len() { None } else { self.open_line.or(Some(source)) };
            self.pending = lead.as_bytes()[written..].to_vec();
            self.gap = self.gap.map(|gap| Gap { untold: 0, ..gap });
        }
        outcome?;
        self.gap = None;
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), Errno> {
        let (written, outcome) = append_all(&self.fd, [&self.pending, &[]]);
        self.grow(written);
        if written == self.pending.len() && self.pending.last() == Some(&b'\n') {
            self.open_line = None;
        }
        self.pending.drain(..written);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        outcome
    }

    /// Keeps the rest of the line that the file ends in, to finish it later; returns what comes after.
    fn keep_line<'a>(&mut self, rest: [&'a [u8]; 2]) -> [&'a [u8]; 2] {
        let mut kept = 0;
        for part in rest {
            let end = memchr(b'\n', part).map(|newline| newline + 1);
            let room = LINE_LIMIT - self.pending.len();
            let take = end.unwrap_or(part.len()).min(room);
            self.pending.extend_from_slice(&part[..take]);
            kept += take;
            if end.is_some() || take < part.len() {
                break;
            }
        }
        skip(rest, kept)
    }

    /// So many lines of anybody are missing here, for another reason than that the disk refused them.
    pub fn miss(&mut self, lines: u64) {
        let gap = self.gap.get_or_insert(Gap { lines: 0, untold: 0, error: TOO_LATE });
        gap.lines = gap.lines.saturating_add(lines);
        gap.untold = gap.untold.saturating_add(lines);
    }

    fn lose(&mut self, error: Errno, parts: [&[u8]; 2]) {
        let gap = self.gap.get_or_insert(Gap { lines: 0, untold: 0, error });
        gap.error = error;
        if parts.iter().all(|part| part.is_empty()) {
            return;
        }
        let lines: usize = parts.iter().map(|part| memchr_iter(b'\n', part).count()).sum();
        // Parts of one endless line hold no newline; together they are one line that is missing.
        let lines = if lines == 0 && gap.untold == 0 { 1 } else { lines as u64 };
        gap.lines = gap.lines.saturating_add(lines);
        gap.untold = gap.untold.saturating_add(lines);
    }
}

fn open_for(path: &Path, behalf: &Behalf) -> Result<OwnedFd, OpenError> {
    let refused = |source| OpenError::Rights { path: path.to_owned(), source };
    let _guise = behalf.begin().map_err(refused)?;
    open_append(path)
}

/// None also where the file system does not say.
fn opened(fd: &OwnedFd) -> Option<Regular> {
    rotate::opened(fd.as_fd()).ok().flatten()
}

fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// The line in the file that stands for those that are missing.
fn notice(lines: u64, error: Errno, json: bool) -> String {
    let were = if lines == 1 { "line was" } else { "lines were" };
    let why = if error == TOO_LATE { "the disk took too long" } else { error.desc() };
    let text = format!("[clusterd] {lines} {were} dropped: {why}");
    if json { serde_json::json!({ "type": "err", "message": text }).to_string() + "\n" } else { text + "\n" }
}

/// Appends until all is written or the kernel refuses; says how much was.
fn append_all(fd: &OwnedFd, parts: [&[u8]; 2]) -> (usize, Result<(), Errno>) {
    let total = parts[0].len() + parts[1].len();
    let mut written = 0;
    while written < total {
        let [head, body] = skip(parts, written).map(IoSlice::new);
        let outcome =
            if head.is_empty() { append(fd.as_fd(), &[body]) } else { append(fd.as_fd(), &[head, body]) };
        match outcome {
            Ok(count) => written += count,
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

fn skip(parts: [&[u8]; 2], count: usize) -> [&[u8]; 2] {
    let from_head = count.min(parts[0].len());
    [&parts[0][from_head..], &parts[1][count - from_head..]]
}

fn last_written(parts: [&[u8]; 2], written: usize) -> Option<u8> {
    let [head, body] = parts;
    match written.checked_sub(head.len()) {
        Some(in_body @ 1..) => Some(body[in_body - 1]),
        Some(0) | None => written.checked_sub(1).map(|index| head[index]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const OUT: Source = (WorkerId(1), Stream::Out);
    const ERR: Source = (WorkerId(1), Stream::Err);

    fn temporary() -> (tempfile::TempDir, LogFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = LogFile::open(&dir.path().join("api-out.log")).unwrap();
        (dir, file)
    }

    fn full() -> OwnedFd {
        open_append(Path::new("/dev/full")).unwrap()
    }

    /// A pipe that has room for `room` bytes, and its read end.
    fn pipe_with_room(room: usize) -> (OwnedFd, OwnedFd) {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let (read_end, write_end) = nix::unistd::pipe2(OFlag::O_NONBLOCK).unwrap();
        let size = fcntl(&write_end, FcntlArg::F_SETPIPE_SZ(64 * 1024)).unwrap() as usize;
        let mut left = size - room;
        while left > 0 {
            left -= nix::unistd::write(&write_end, &vec![b'#'; left]).unwrap();
        }
        (read_end, write_end)
    }

    fn read_pipe(read_end: &OwnedFd) -> String {
        let mut all = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = nix::unistd::read(read_end, &mut buffer) {
            all.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8(all).unwrap().replace('#', "")
    }

    #[test]
    fn two_streams_in_one_file_do_not_tear_each_others_lines() {
        let (_dir, mut file) = temporary();
        file.write(OUT, [b"", b"begun "]);
        file.write(OUT, [b"", b"and on"]);
        file.write(ERR, [b"whole ", b"line\n"]);
        file.write(OUT, [b"", b"rest\n"]);
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "begun and on\nwhole line\nrest\n");
    }

    #[test]
    fn a_stream_that_ends_without_a_word_leaves_the_file_alone() {
        let (_dir, mut file) = temporary();
        file.write(OUT, [b"", b"half "]);
        file.write(ERR, [b"", b""]);
        file.write(OUT, [b"", b"line\n"]);
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "half line\n");
    }

    #[test]
    fn a_full_disk_is_told_once_and_what_is_missing_is_counted() {
        let (_dir, mut file) = temporary();
        let disk = std::mem::replace(&mut file.fd, full());
        assert_eq!(file.write(OUT, [b"a\n", b"b\nc\n"]), Turn::Failed(Errno::ENOSPC));
        assert_eq!(file.write(ERR, [b"", b"d\n"]), Turn::None);
        file.drop_batch([b"e\n", b""]);
        assert!(file.is_failing());
        file.fd = disk;
        assert_eq!(file.write(OUT, [b"", b"f\n"]), Turn::Resumed { lines: 5, error: Errno::ENOSPC });
        assert_eq!(file.write(OUT, [b"", b"g\n"]), Turn::None);
        let expected = "[clusterd] 5 lines were dropped: No space left on device\nf\ng\n";
        assert_eq!(fs::read_to_string(file.path()).unwrap(), expected);
    }

    #[test]
    fn a_notice_in_a_file_of_json_is_json() {
        let (_dir, mut file) = temporary();
        file.set_json(true);
        let disk = std::mem::replace(&mut file.fd, full());
        file.write(OUT, [b"", b"{}\n"]);
        file.fd = disk;
        file.write(OUT, [b"", b"{}\n"]);
        let text = fs::read_to_string(file.path()).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["message"], "[clusterd] 1 line was dropped: No space left on device");
        assert_eq!((lines.len(), &lines[1]), (2, &serde_json::json!({})));
    }

    #[test]
    fn the_missing_lines_are_told_without_waiting_for_a_new_one() {
        let (_dir, mut file) = temporary();
        let disk = std::mem::replace(&mut file.fd, full());
        file.write(OUT, [b"", b"last words\n"]);
        file.fd = disk;
        assert_eq!(file.write(OUT, [b"", b""]), Turn::Resumed { lines: 1, error: Errno::ENOSPC });
        let expected = "[clusterd] 1 line was dropped: No space left on device\n";
        assert_eq!(fs::read_to_string(file.path()).unwrap(), expected);
    }

    #[test]
    fn a_line_that_was_torn_is_finished_before_anything_else() {
        let (_dir, mut file) = temporary();
        let (read_end, write_end) = pipe_with_room(4096);
        file.fd = write_end;
        let line = "x".repeat(3000) + "\n";
        let batch = line.repeat(3);
        assert_eq!(
            file.write(OUT, [&batch.as_bytes()[..10], &batch.as_bytes()[10..]]),
            Turn::Failed(Errno::EAGAIN)
        );
        assert_eq!(file.write(ERR, [b"", b"lost\n"]), Turn::None);
        let mut seen = read_pipe(&read_end);
        assert!(seen.len() > line.len() && !seen.ends_with('\n'), "the write did not tear a line");
        assert_eq!(file.write(ERR, [b"", b"next\n"]), Turn::Resumed { lines: 2, error: Errno::EAGAIN });
        seen += &read_pipe(&read_end);
        let notice = "[clusterd] 2 lines were dropped: Try again\nnext\n";
        assert_eq!(seen, line.repeat(2) + notice);
    }

    /// One run of random batches into a pipe that is read now and then: what comes out must be what
    /// went in, where every stretch that is missing is replaced by a notice with its exact number of lines.
    fn lines_come_out_whole_or_counted(seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let (_dir, mut file) = temporary();
        let (read_end, write_end) = pipe_with_room(4096);
        file.fd = write_end;
        let (mut sent, mut seen) = (Vec::new(), String::new());
        for _ in 0..200 {
            let lines: Vec<String> = (0..random.usize(0..30))
                .map(|index| format!("{} {}\n", sent.len() + index, "x".repeat(random.usize(0..3000))))
                .collect();
            let batch = lines.concat();
            sent.extend(lines);
            let (head, body) = batch.as_bytes().split_at(random.usize(0..=batch.len()));
            if random.u8(0..10) == 0 && file.is_failing() {
                file.drop_batch([head, body]);
            } else {
                file.write(if random.bool() { OUT } else { ERR }, [head, body]);
            }
            if random.u8(0..3) == 0 {
                seen += &read_pipe(&read_end);
            }
        }
        while file.is_failing() {
            seen += &read_pipe(&read_end);
            file.write(OUT, [b"", b""]);
        }
        seen += &read_pipe(&read_end);
        let mut next = 0;
        for line in seen.split_inclusive('\n') {
            match line.strip_prefix("[clusterd] ") {
                Some(notice) => next += notice.split(' ').next().unwrap().parse::<usize>().unwrap(),
                None => {
                    assert_eq!(line, sent[next], "seed {seed}");
                    next += 1;
                }
            }
        }
        assert_eq!(next, sent.len(), "seed {seed}");
    }

    #[test]
    fn whatever_fails_when_no_line_is_torn_and_every_missing_one_is_counted() {
        (0..100).for_each(lines_come_out_whole_or_counted);
    }

    #[test]
    fn parts_of_an_endless_line_count_as_one() {
        let (_dir, mut file) = temporary();
        let disk = std::mem::replace(&mut file.fd, full());
        for _ in 0..10 {
            file.write(OUT, [b"", &[b'x'; 1000]]);
        }
        file.fd = disk;
        assert_eq!(file.write(OUT, [b"", b"end\n"]), Turn::Resumed { lines: 1, error: Errno::ENOSPC });
    }

    #[test]
    fn memory_stays_bounded_while_an_endless_line_is_torn() {
        let (_dir, mut file) = temporary();
        let (_read_end, write_end) = pipe_with_room(4096);
        file.fd = write_end;
        for _ in 0..100 {
            file.write(OUT, [&[b'x'; 60_000], &[b'y'; 60_000]]);
            assert!(file.pending.len() <= LINE_LIMIT + 100);
        }
    }

    #[test]
    fn reopening_follows_the_path_after_a_rename() {
        let (dir, mut file) = temporary();
        file.write(OUT, [b"", b"old\n"]);
        let moved = dir.path().join("moved.log");
        fs::rename(file.path(), &moved).unwrap();
        file.write(OUT, [b"", b"still old\n"]);
        file.reopen().unwrap();
        file.write(OUT, [b"", b"new\n"]);
        assert_eq!(fs::read_to_string(moved).unwrap(), "old\nstill old\n");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "new\n");
    }

    const WALL: Duration = Duration::from_secs(1_795_423_212);

    #[test]
    fn a_rotation_keeps_every_line_and_the_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, mut file) = temporary();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        file.write(OUT, [b"", b"old\n"]);
        assert_eq!(file.rotate(WALL).unwrap(), file.path());
        assert_eq!(file.growth(0, false).unwrap().size, 0);
        file.write(OUT, [b"", b"newer\n"]);
        file.rotate(WALL).unwrap();
        file.write(OUT, [b"", b"new\n"]);
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("api-out.log.20261123T084012Z"), "old\n");
        assert_eq!(read("api-out.log.20261123T084012Z-1"), "newer\n");
        assert_eq!(read("api-out.log"), "new\n");
        assert_eq!(file.growth(0, false).unwrap().size, 4);
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn a_name_that_is_taken_is_never_overwritten() {
        let (dir, mut file) = temporary();
        let taken = ["api-out.log.20261123T084012Z", "api-out.log.20261123T084012Z-1.gz"];
        taken.iter().for_each(|name| fs::write(dir.path().join(name), "mine").unwrap());
        file.write(OUT, [b"", b"old\n"]);
        file.rotate(WALL).unwrap();
        for name in taken {
            assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), "mine");
        }
        let old = dir.path().join("api-out.log.20261123T084012Z-2");
        assert_eq!(fs::read_to_string(old).unwrap(), "old\n");
    }

    #[test]
    fn a_file_that_somebody_else_moved_is_left_to_them() {
        for is_replaced in [false, true] {
            let (dir, mut file) = temporary();
            file.write(OUT, [b"", b"old\n"]);
            let moved = dir.path().join("api-out.log.1");
            fs::rename(file.path(), &moved).unwrap();
            if is_replaced {
                fs::write(file.path(), "theirs\n").unwrap();
            }
            file.rotate(WALL).unwrap();
            file.write(OUT, [b"", b"new\n"]);
            let theirs = if is_replaced { "theirs\n" } else { "" };
            assert_eq!(fs::read_to_string(file.path()).unwrap(), format!("{theirs}new\n"));
            assert_eq!(fs::read_to_string(moved).unwrap(), "old\n");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        }
    }

    #[test]
    fn a_look_finds_what_was_moved_and_what_was_truncated() {
        let (dir, mut file) = temporary();
        file.write(OUT, [b"", b"old\n"]);
        fs::write(file.path(), "").unwrap();
        file.look().unwrap();
        assert_eq!(file.growth(0, false).unwrap().size, 0);
        fs::rename(file.path(), dir.path().join("moved")).unwrap();
        file.look().unwrap();
        file.write(OUT, [b"", b"new\n"]);
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "new\n");
    }

    #[test]
    fn where_a_link_leads_the_file_is_rotated_and_the_link_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (link, real) = (dir.path().join("link.log"), dir.path().join("real.log"));
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut file = LogFile::open(&link).unwrap();
        file.write(OUT, [b"", b"old\n"]);
        assert_eq!(file.rotate(WALL).unwrap(), real);
        file.write(OUT, [b"", b"new\n"]);
        assert_eq!(fs::read_to_string(&real).unwrap(), "new\n");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn devices_and_pipes_are_never_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _reader = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        for path in [&fifo, Path::new("/dev/null"), Path::new("/dev/full")] {
            assert_eq!(LogFile::open(path).unwrap().growth(u64::MAX, true), None, "{}", path.display());
        }
    }

    #[test]
    fn emptying_keeps_the_file_and_what_comes_next() {
        let (_dir, mut file) = temporary();
        file.write(OUT, [b"", b"old\nhalf "]);
        file.empty().unwrap();
        file.write(ERR, [b"", b"new\n"]);
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "new\n");
        assert_eq!(file.growth(0, false).unwrap().size, 4);
    }
}
