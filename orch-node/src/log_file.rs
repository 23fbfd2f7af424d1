//! Container logs in CRI's format: `TIMESTAMP STREAM TAG CONTENT`, one record a line.
//!
//! The tag is `F` for a full line and `P` for a part of one that was too long for a record.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use jiff::Timestamp;

/// Content beyond this many bytes goes into another record, so that an endless line cannot fill memory.
const MAX_CONTENT: usize = 16 * 1024;

/// Bytes read at once.
const BLOCK: usize = 64 * 1024;

/// Which of a program's streams a record is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Splits one stream of a program into records.
#[derive(Debug)]
pub(crate) struct LineSplitter {
    stream: Stream,
    pending: Vec<u8>,
}

impl LineSplitter {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            pending: Vec::new(),
        }
    }

    /// Appends the records that the bytes complete to `out`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], now: Timestamp, out: &mut Vec<u8>) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            self.fill(&bytes[..end], now, out);
            self.record('F', now, out);
            bytes = &bytes[end + 1..];
        }
        self.fill(bytes, now, out);
    }

    /// Writes what is left without a line end.
    pub(crate) fn finish(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.record('F', now, out);
        }
    }

    fn fill(&mut self, mut bytes: &[u8], now: Timestamp, out: &mut Vec<u8>) {
        while self.pending.len() + bytes.len() > MAX_CONTENT {
            let (head, tail) = bytes.split_at(MAX_CONTENT - self.pending.len());
            self.pending.extend_from_slice(head);
            self.record('P', now, out);
            bytes = tail;
        }
        self.pending.extend_from_slice(bytes);
    }

    fn record(&mut self, tag: char, now: Timestamp, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{now:.9} {} {tag} ", self.stream.as_str()).as_bytes());
        out.append(&mut self.pending);
        out.push(b'\n');
    }
}

/// Appends lines as standard output, each with the present time.
pub(crate) fn append_lines(path: &Path, lines: &[String]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut out = Vec::new();
    let mut splitter = LineSplitter::new(Stream::Stdout);
    for line in lines {
        splitter.push(line.as_bytes(), Timestamp::now(), &mut out);
        splitter.push(b"\n", Timestamp::now(), &mut out);
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?
        .write_all(&out)
}

/// Which part of a log to read; upstream's PodLogOptions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    /// Only the last lines.
    pub(crate) tail_lines: Option<u64>,
    /// Only records from this time on.
    pub(crate) since: Option<Timestamp>,
    /// Put each record's time before it.
    pub(crate) timestamps: bool,
    /// End after this many bytes.
    pub(crate) limit_bytes: Option<u64>,
}

/// Reads a log from where the options say, as far as it is written.
#[derive(Debug)]
pub(crate) struct LogReader {
    file: File,
    options: LogOptions,
    pending: Vec<u8>,
    left: u64,
    mid_line: bool,
}

impl LogReader {
    pub(crate) fn open(path: &Path, options: LogOptions) -> io::Result<Self> {
        let mut file = File::open(path)?;
        if let Some(lines) = options.tail_lines {
            let start = tail_start(&mut file, lines)?;
            file.seek(SeekFrom::Start(start))?;
        }
        let left = options.limit_bytes.unwrap_or(u64::MAX);
        Ok(Self {
            file,
            options,
            pending: Vec::new(),
            left,
            mid_line: false,
        })
    }

    /// The next part of the content; empty when all that is written was read.
    pub(crate) fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut block = vec![0; BLOCK];
        while out.is_empty() && self.left > 0 {
            let n = self.file.read(&mut block)?;
            if n == 0 {
                break;
            }
            self.pending.extend_from_slice(&block[..n]);
            self.take_records(&mut out);
        }
        let keep = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        out.truncate(keep);
        self.left -= keep as u64;
        Ok(out)
    }

    /// Whether the byte limit was reached.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.left == 0
    }

    fn take_records(&mut self, out: &mut Vec<u8>) {
        let Some(end) = self.pending.iter().rposition(|b| *b == b'\n') else {
            return;
        };
        let rest = self.pending.split_off(end + 1);
        let records = std::mem::replace(&mut self.pending, rest);
        for line in records[..end].split(|b| *b == b'\n') {
            self.show(line, out);
        }
    }

    fn show(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(record) = Record::parse(line) else {
            return;
        };
        if let (Some(since), Some(time)) = (self.options.since, record.time())
            && time < since
        {
            return;
        }
        if self.options.timestamps && !self.mid_line {
            out.extend_from_slice(record.timestamp);
            out.push(b' ');
        }
        out.extend_from_slice(record.content);
        self.mid_line = record.partial;
        if !record.partial {
            out.push(b'\n');
        }
    }
}

struct Record<'a> {
    timestamp: &'a [u8],
    partial: bool,
    content: &'a [u8],
}

impl<'a> Record<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let timestamp = parts.next()?;
        let stream = parts.next()?;
        let tag = parts.next()?;
        if !matches!(stream, b"stdout" | b"stderr") {
            return None;
        }
        Some(Self {
            timestamp,
            partial: tag == b"P",
            content: parts.next().unwrap_or_default(),
        })
    }

    fn time(&self) -> Option<Timestamp> {
        std::str::from_utf8(self.timestamp).ok()?.parse().ok()
    }
}

/// Where the last `lines` lines of a file begin.
fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut missing = lines + 1;
    let mut block = vec![0; BLOCK];
    while end > 0 {
        let size = end.min(BLOCK as u64);
        let begin = end - size;
        file.seek(SeekFrom::Start(begin))?;
        let part = &mut block[..usize::try_from(size).unwrap_or(BLOCK)];
        file.read_exact(part)?;
        for (at, _) in part.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            missing -= 1;
            if missing == 0 {
                return Ok(begin + at as u64 + 1);
            }
        }
        end = begin;
    }
    Ok(0)
}

/// The end of a log's content, for termination messages taken from logs: at most `lines` lines and `bytes` bytes.
pub(crate) fn tail(path: &Path, lines: u64, bytes: usize) -> io::Result<String> {
    let options = LogOptions {
        tail_lines: Some(lines),
        ..LogOptions::default()
    };
    let mut reader = LogReader::open(path, options)?;
    let mut all = Vec::new();
    loop {
        let part = reader.read()?;
        if part.is_empty() {
            break;
        }
        all.extend_from_slice(&part);
        let excess = all.len().saturating_sub(bytes);
        all.drain(..excess);
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[&str]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        (dir, path)
    }

    fn read(path: &Path, options: LogOptions) -> String {
        let mut reader = LogReader::open(path, options).unwrap();
        let mut all = Vec::new();
        loop {
            let part = reader.read().unwrap();
            if part.is_empty() {
                return String::from_utf8(all).unwrap();
            }
            all.extend_from_slice(&part);
        }
    }

    const LINES: [&str; 4] = [
        "2026-01-01T00:00:01.000000001Z stdout F one",
        "2026-01-01T00:00:02.000000001Z stderr P two-",
        "2026-01-01T00:00:03.000000001Z stderr F half",
        "2026-01-01T00:00:04.000000001Z stdout F ",
    ];

    #[test]
    fn records_become_lines_and_parts_are_joined() {
        let (_dir, path) = log(&LINES);
        assert_eq!(read(&path, LogOptions::default()), "one\ntwo-half\n\n");
        let options = LogOptions {
            timestamps: true,
            ..LogOptions::default()
        };
        let expected = "2026-01-01T00:00:01.000000001Z one\n2026-01-01T00:00:02.000000001Z two-half\n2026-01-01T00:00:04.000000001Z \n";
        assert_eq!(read(&path, options), expected);
    }

    #[test]
    fn tail_since_and_limit_cut_the_log() {
        let (_dir, path) = log(&LINES);
        let tail = |n| LogOptions {
            tail_lines: Some(n),
            ..LogOptions::default()
        };
        assert_eq!(read(&path, tail(0)), "");
        assert_eq!(read(&path, tail(2)), "half\n\n");
        assert_eq!(read(&path, tail(99)), "one\ntwo-half\n\n");
        let since = "2026-01-01T00:00:03Z".parse().ok();
        assert_eq!(
            read(
                &path,
                LogOptions {
                    since,
                    ..LogOptions::default()
                }
            ),
            "half\n\n"
        );
        assert_eq!(
            read(
                &path,
                LogOptions {
                    limit_bytes: Some(5),
                    ..LogOptions::default()
                }
            ),
            "one\nt"
        );
    }

    #[test]
    fn tail_finds_lines_across_blocks() {
        let many: Vec<String> = (0..10_000)
            .map(|i| format!("2026-01-01T00:00:01Z stdout F {i}"))
            .collect();
        let (_dir, path) = log(&many.iter().map(String::as_str).collect::<Vec<_>>());
        let content = read(
            &path,
            LogOptions {
                tail_lines: Some(5_000),
                ..LogOptions::default()
            },
        );
        assert!(content.starts_with("5000\n"));
        assert!(content.ends_with("9999\n"));
    }

    #[test]
    fn an_endless_line_is_written_in_parts_and_reads_as_one() {
        let mut splitter = LineSplitter::new(Stream::Stdout);
        let mut out = Vec::new();
        let now = Timestamp::now();
        for _ in 0..5 {
            splitter.push(&[b'x'; 10_000], now, &mut out);
        }
        splitter.push(b"\nend", now, &mut out);
        splitter.finish(now, &mut out);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, &out).unwrap();
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 5);
        assert_eq!(
            read(&path, LogOptions::default()),
            format!("{}\nend\n", "x".repeat(50_000))
        );
    }

    #[test]
    fn a_record_that_is_still_being_written_is_read_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "2026-01-01T00:00:01Z stdout F on").unwrap();
        let mut reader = LogReader::open(&path, LogOptions::default()).unwrap();
        assert!(reader.read().unwrap().is_empty());
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"e\n")
            .unwrap();
        assert_eq!(reader.read().unwrap(), b"one\n");
    }
}
