//! The process that stays with a container: it starts the program, writes its output to the log, waits for its end and
//! records it. It is small, has one thread, and does not need the agent to live.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, pipe2, setsid};

use super::record::{self, ContainerRecord, EXIT, ExitRecord, ProcessRecord, SHIM, STATE};
use super::{cgroup, launch, sys};
use crate::log_file::{LineSplitter, Stream};

/// What the shim reports on its standard output once the program runs or could not be started.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) enum Report {
    Started(ProcessRecord),
    Failed(String),
}

/// Runs the shim of the container in a directory. Its standard input is the container's lock.
pub(super) fn run(dir: &Path) -> i32 {
    match try_run(dir) {
        Ok(()) => 0,
        Err(error) => {
            report(&Report::Failed(format!("shim: {error}")));
            1
        }
    }
}

fn try_run(dir: &Path) -> io::Result<()> {
    // Kept open until this process ends: who finds it locked knows that the shim lives.
    let _lock = sys::keep_stdin()?;
    sys::set_standard_stream(&File::open("/dev/null")?, 0)?;
    setsid()?;
    record::write(dir, SHIM, &ProcessRecord::of(std::process::id().cast_signed())?)?;
    let container: ContainerRecord = record::read(dir, record::CONFIG)?.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "the container's configuration is missing",
        )
    })?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block()?;
    let children = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let exit = match start(dir, &container)? {
        Ok(program) => {
            record::write(dir, STATE, &program.process)?;
            report(&Report::Started(program.process));
            close_stdout()?;
            program.watch(&children, &container)?
        }
        Err(message) => {
            let exit = ExitRecord::new(128, "StartError", message.clone());
            record::write(dir, EXIT, &exit)?;
            report(&Report::Failed(message));
            return Ok(());
        }
    };
    record::write(dir, EXIT, &exit)
}

/// Tells the agent; that it is gone is no reason to stop.
fn report(report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let mut stdout = io::stdout();
        drop(stdout.write_all(&line).and_then(|()| stdout.flush()));
    }
}

fn close_stdout() -> io::Result<()> {
    let null = OpenOptions::new().write(true).open("/dev/null")?;
    Ok(sys::set_standard_stream(&null, 1)?)
}

/// A running program with the near ends of its pipes.
struct Program {
    process: ProcessRecord,
    stdout: File,
    stderr: File,
    /// Keeps the program's standard input open when it asked for one.
    _stdin: Option<OwnedFd>,
}

/// Starts the program; the inner error says why it could not be executed.
fn start(dir: &Path, container: &ContainerRecord) -> io::Result<Result<Program, String>> {
    let (out_near, out_far) = pipe2(OFlag::O_CLOEXEC)?;
    let (err_near, err_far) = pipe2(OFlag::O_CLOEXEC)?;
    let (status_near, status_far) = pipe2(OFlag::O_CLOEXEC)?;
    let stdin = if container.config.stdin {
        Some(pipe2(OFlag::O_CLOEXEC)?)
    } else {
        None
    };
    unshare(CloneFlags::CLONE_NEWPID)?;
    let child = match sys::fork()? {
        ForkResult::Child => {
            let streams = (stdin.as_ref().map(|(near, _)| near), &out_far, &err_far);
            let error = match set_streams(streams) {
                Ok(()) => launch::launch(container, &dir.join("fs")),
                Err(error) => format!("set the standard streams: {error}").into(),
            };
            drop(File::from(status_far).write_all(error.to_string().as_bytes()));
            sys::exit_now(128)
        }
        ForkResult::Parent { child } => child,
    };
    drop((out_far, err_far, status_far));
    let process = ProcessRecord::of(child.as_raw())?;
    let mut message = String::new();
    File::from(status_near).read_to_string(&mut message)?;
    if !message.is_empty() {
        waitpid(child, None)?;
        return Ok(Err(message));
    }
    for pipe in [&out_near, &err_near] {
        nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    Ok(Ok(Program {
        process,
        stdout: out_near.into(),
        stderr: err_near.into(),
        _stdin: stdin.map(|(_, far)| far),
    }))
}

fn set_streams((stdin, stdout, stderr): (Option<&OwnedFd>, &OwnedFd, &OwnedFd)) -> nix::Result<()> {
    if let Some(stdin) = stdin {
        sys::set_standard_stream(stdin, 0)?;
    }
    sys::set_standard_stream(stdout, 1)?;
    sys::set_standard_stream(stderr, 2)
}

impl Program {
    /// Copies the program's output to its log until it has ended.
    fn watch(mut self, children: &SignalFd, container: &ContainerRecord) -> io::Result<ExitRecord> {
        let mut log = Log::open(container.log_path.as_deref())?;
        let (mut out_open, mut err_open) = (true, true);
        loop {
            if let Some(exit) = self.reap(container)? {
                log.copy(Stream::Stdout, &mut self.stdout);
                log.copy(Stream::Stderr, &mut self.stderr);
                log.finish();
                return Ok(exit);
            }
            self.wait(children, out_open, err_open)?;
            while children.read_signal()?.is_some() {}
            out_open = out_open && log.copy(Stream::Stdout, &mut self.stdout);
            err_open = err_open && log.copy(Stream::Stderr, &mut self.stderr);
        }
    }

    fn wait(&self, children: &SignalFd, out_open: bool, err_open: bool) -> io::Result<()> {
        let mut fds = vec![PollFd::new(children.as_fd(), PollFlags::POLLIN)];
        if out_open {
            fds.push(PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN));
        }
        if err_open {
            fds.push(PollFd::new(self.stderr.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn reap(&self, container: &ContainerRecord) -> io::Result<Option<ExitRecord>> {
        let pid = Pid::from_raw(self.process.pid);
        let code = match waitpid(pid, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::Exited(_, code) => code,
            WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
            _ => return Ok(None),
        };
        let reason = if code == 137 && cgroup::was_oom_killed(&container.cgroups) {
            "OOMKilled"
        } else if code == 0 {
            "Completed"
        } else {
            "Error"
        };
        Ok(Some(ExitRecord::new(code, reason, "")))
    }
}

/// The container's log. A full disk loses lines and stops nothing.
struct Log {
    file: Option<File>,
    stdout: LineSplitter,
    stderr: LineSplitter,
    buffer: Vec<u8>,
}

impl Log {
    fn open(path: Option<&Path>) -> io::Result<Self> {
        let open = |path: &Path| {
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir)?;
            }
            OpenOptions::new().create(true).append(true).open(path)
        };
        Ok(Self {
            file: path.map(open).transpose()?,
            stdout: LineSplitter::new(Stream::Stdout),
            stderr: LineSplitter::new(Stream::Stderr),
            buffer: Vec::new(),
        })
    }

    /// Copies what can be read now; `false` when the stream is closed.
    fn copy(&mut self, stream: Stream, from: &mut File) -> bool {
        let mut block = [0; 16 * 1024];
        let open = loop {
            match from.read(&mut block) {
                Ok(0) => break false,
                Ok(n) => {
                    let splitter = match stream {
                        Stream::Stdout => &mut self.stdout,
                        Stream::Stderr => &mut self.stderr,
                    };
                    splitter.push(&block[..n], Timestamp::now(), &mut self.buffer);
                    self.flush();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error.kind() == io::ErrorKind::WouldBlock,
            }
        };
        self.flush();
        open
    }

    fn finish(&mut self) {
        let now = Timestamp::now();
        self.stdout.finish(now, &mut self.buffer);
        self.stderr.finish(now, &mut self.buffer);
        self.flush();
    }

    fn flush(&mut self) {
        if let Some(file) = &mut self.file {
            drop(file.write_all(&self.buffer));
        }
        self.buffer.clear();
    }
}
