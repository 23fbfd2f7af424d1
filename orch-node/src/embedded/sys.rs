//! The system calls that have no safe wrapper.
#![allow(
    unsafe_code,
    reason = "fork, prctl on the bounding set and pidfd calls have no safe wrapper"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::ForkResult;

/// Forks. Only for processes with one thread: the child goes on with all of this program's abilities.
pub(super) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: called by the shim and the exec helper alone, which never start a second thread.
    unsafe { nix::unistd::fork() }
}

/// Ends the process at once, without running destructors that belong to the parent.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Gives each signal that the Rust runtime or this program changed its default action back.
pub(super) fn reset_signals() -> nix::Result<()> {
    for signal in [Signal::SIGPIPE, Signal::SIGCHLD] {
        // SAFETY: the default action runs no code of this program.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()
}

/// Takes a capability out of the bounding set. `false`: the kernel does not know a capability of that number.
pub(super) fn drop_bounding_capability(capability: u32) -> nix::Result<bool> {
    // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory of ours.
    let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
    match Errno::result(result) {
        Ok(_) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// A handle on a process that no later process of the same number can be mistaken for.
pub(super) fn pidfd_open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: pidfd_open takes a pid and flags and returns a new descriptor, which nobody else owns.
    unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(OwnedFd::from_raw_fd(RawFd::try_from(fd).unwrap_or(-1)))
    }
}

/// Sends a signal through a process handle.
pub(super) fn pidfd_send_signal(pidfd: &OwnedFd, signal: Signal) -> nix::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed, and the descriptor is open for the length of the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as i32,
            info,
            0,
        )
    };
    Errno::result(result).map(drop)
}

/// Makes a descriptor the process's standard input, output or error (0, 1 or 2).
pub(super) fn set_standard_stream(file: &impl AsRawFd, number: RawFd) -> nix::Result<()> {
    // SAFETY: dup2 onto a standard stream; nobody in this process holds those as owned descriptors.
    Errno::result(unsafe { libc::dup2(file.as_raw_fd(), number) }).map(drop)
}

/// A second descriptor, closed on exec, for the same open file as standard input has.
pub(super) fn keep_stdin() -> io::Result<File> {
    // SAFETY: F_DUPFD_CLOEXEC returns a new descriptor, which nobody else owns.
    unsafe {
        let fd = Errno::result(libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3))?;
        Ok(File::from_raw_fd(fd))
    }
}
