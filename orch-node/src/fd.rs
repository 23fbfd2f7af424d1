//! Descriptors that tokio watches.
#![allow(
    unsafe_code,
    reason = "AsyncFd::register has no safe form for owned descriptors"
)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Lets tokio watch a descriptor.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always answers with the same descriptor, which is open until it is dropped.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}
