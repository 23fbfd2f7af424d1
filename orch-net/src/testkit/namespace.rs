//! A network namespace with a thread that lives in it.

use std::any::Any;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::thread;

use futures::FutureExt;
use nix::sched::{CloneFlags, unshare};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

type Job = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// A fresh network namespace. What is run in it sees its links, sockets and rules, and so do the programs that it starts. The
/// namespace and all in it vanish when the value is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    jobs: Option<mpsc::UnboundedSender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    file: File,
}

impl Namespace {
    /// Makes a namespace, with its loopback up.
    ///
    /// # Errors
    /// If the process may not: it takes root.
    pub fn new(name: impl Into<String>) -> io::Result<Self> {
        let name = name.into();
        let (jobs, queue) = mpsc::unbounded_channel();
        let (opened, open) = std::sync::mpsc::channel();
        let thread = thread::Builder::new()
            .name(format!("netns {name}"))
            .spawn(move || inhabit(queue, &opened))?;
        let file = open.recv().map_err(io::Error::other)??;
        Ok(Self {
            name,
            jobs: Some(jobs),
            thread: Some(thread),
            file,
        })
    }

    /// The name given to it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A descriptor by which links are moved here.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Runs a future in the namespace and returns what it returns. What it spawns on tokio stays there.
    ///
    /// # Panics
    /// With the panic of the future.
    pub async fn run<F, Fut, T>(&self, work: F) -> T
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let (done, result) = oneshot::channel::<Result<T, Box<dyn Any + Send>>>();
        let job: Job = Box::new(move || {
            Box::pin(async move {
                let outcome = std::panic::AssertUnwindSafe(work()).catch_unwind().await;
                drop(done.send(outcome));
            })
        });
        let jobs = self.jobs.as_ref().expect("only dropping closes the queue");
        assert!(
            jobs.send(job).is_ok(),
            "namespace {} has lost its thread",
            self.name
        );
        match result.await {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => panic!("namespace {} has lost its thread", self.name),
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn inhabit(mut queue: mpsc::UnboundedReceiver<Job>, opened: &std::sync::mpsc::Sender<io::Result<File>>) {
    let enter = || -> io::Result<_> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        no_duplicate_detection()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(loopback_up())?;
        Ok((runtime, File::open("/proc/thread-self/ns/net")?))
    };
    let (runtime, file) = match enter() {
        Ok(entered) => entered,
        Err(error) => {
            let error = io::Error::new(
                error.kind(),
                format!("make a network namespace (needs root): {error}"),
            );
            drop(opened.send(Err(error)));
            return;
        }
    };
    if opened.send(Ok(file)).is_err() {
        return;
    }
    LocalSet::new().block_on(&runtime, async move {
        while let Some(job) = queue.recv().await {
            tokio::task::spawn_local(job());
        }
    });
}

/// Lets IPv6 addresses be used at once: nobody else is here to have them.
fn no_duplicate_detection() -> io::Result<()> {
    for scope in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad");
        if std::path::Path::new(&path).exists() {
            std::fs::write(path, "0")?;
        }
    }
    Ok(())
}

async fn loopback_up() -> io::Result<()> {
    let netlink = crate::netlink::Netlink::open()?;
    let index = netlink.link("lo").await.map_err(io::Error::other)?;
    netlink.set_up(index.unwrap_or(1)).await.map_err(io::Error::other)
}
