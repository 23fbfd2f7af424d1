//! The members of an etcd cluster, and which of them to call.
//!
//! Each has a connection of its own. All calls go to one member until it fails; then they move on to the next. A balancer would
//! keep sending every third call to a member that hangs.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error, KvClient, WatchClient};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::failure::{Failure, Refused};
use super::options::EtcdOptions;
use super::version::Version;
use crate::StoreError;

/// What a page of large values can come to; etcd itself sends up to 2 GiB.
const MAX_MESSAGE: usize = i32::MAX as usize;

/// The pause after every member has failed once.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection to one member.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) kv: KvClient,
    pub(super) watch: WatchClient,
}

struct Member {
    url: String,
    connection: OnceCell<Arc<Connection>>,
    version: OnceCell<Version>,
}

/// All members.
pub(super) struct Members {
    members: Vec<Member>,
    current: AtomicUsize,
    options: ConnectOptions,
    timeout: Duration,
}

impl Members {
    pub(super) fn new(options: &EtcdOptions) -> Result<Self, StoreError> {
        if options.endpoints.is_empty() {
            return Err(StoreError::Denied {
                reason: "no endpoint of etcd is given".into(),
            });
        }
        let member = |url: &String| Member {
            url: url.clone(),
            connection: OnceCell::new(),
            version: OnceCell::new(),
        };
        Ok(Self {
            members: options.endpoints.iter().map(member).collect(),
            current: AtomicUsize::new(0),
            options: options.connection()?,
            timeout: options.request_timeout,
        })
    }

    /// Makes a call that changes nothing, at one member after the other while there is time.
    pub(super) async fn read<T, F>(&self, call: impl Fn(Arc<Connection>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.call(false, call).await
    }

    /// Makes a call that may change something: again only when it surely has not.
    pub(super) async fn write<T, F>(&self, call: impl Fn(Arc<Connection>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.call(true, call).await
    }

    /// The member that is called now.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Moves on from this member, unless somebody else has done so.
    pub(super) fn move_on(&self, from: usize) {
        let next = (from + 1) % self.members.len();
        self.current
            .compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed)
            .ok();
    }

    /// How long to wait for a member before another is asked, where that is possible.
    pub(super) fn patience(&self) -> Duration {
        self.timeout / 3
    }

    /// A connection to this member. Without a user it is made with the first call on it.
    pub(super) async fn connection(&self, member: usize) -> Result<Arc<Connection>, Failure> {
        let member = &self.members[member];
        let connect = || async {
            let client = Client::connect([&member.url], Some(self.options.clone())).await?;
            Ok::<_, Failure>(Arc::new(Connection {
                kv: client.kv_client().max_decoding_message_size(MAX_MESSAGE),
                watch: client.watch_client().max_decoding_message_size(MAX_MESSAGE),
                client,
            }))
        };
        let limit = self.patience();
        match tokio::time::timeout(limit, member.connection.get_or_try_init(connect)).await {
            Ok(connection) => connection.cloned(),
            Err(_) => Err(Failure::NotDone(format!("no connection in {limit:?}"))),
        }
    }

    /// Which etcd this member is.
    pub(super) async fn version(&self, member: usize) -> Result<Version, Failure> {
        let ask = || async {
            let mut client = self.connection(member).await?.client.maintenance_client();
            match self.in_time(self.patience(), client.status()).await {
                Ok(status) => Ok(Version::parse(status.version())),
                // Only the newer ones ask for rights here.
                Err(Failure::Refused(Refused::Denied(_))) => Ok(Version::NEWER),
                Err(failure) => Err(failure),
            }
        };
        self.members[member].version.get_or_try_init(ask).await.copied()
    }

    /// Where a member is, for people.
    pub(super) fn url(&self, member: usize) -> &str {
        &self.members[member].url
    }

    /// Waits no longer than `timeout` for an answer.
    pub(super) async fn in_time<T>(
        &self,
        timeout: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(timeout, call).await {
            Ok(result) => result.map_err(Failure::from),
            Err(_) => Err(Failure::Unknown(format!("no answer in {timeout:?}"))),
        }
    }

    async fn call<T, F>(&self, is_write: bool, call: impl Fn(Arc<Connection>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let until = Instant::now() + self.timeout;
        let mut failed = 0;
        let mut refreshed = false;
        loop {
            let member = self.current();
            let rest = until.saturating_duration_since(Instant::now());
            // A read has time for another member; the outcome of a write is worth waiting for.
            let limit = if is_write { rest } else { rest.min(self.patience()) };
            let failure = match self.attempt(member, limit, &call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if let Failure::Refused(Refused::BadToken(_)) = &failure
                && !refreshed
            {
                refreshed = true;
                self.refresh_token(member).await?;
                continue;
            }
            if !matches!(failure, Failure::Refused(_)) {
                tracing::debug!(member = self.url(member), ?failure, "a call to etcd failed");
                self.move_on(member);
            }
            failed += 1;
            // What little time may be left is too short for an answer, and its error says less than this one.
            let is_late = Instant::now() + self.timeout / 5 >= until;
            if is_late || !failure.may_be_repeated(is_write) {
                return Err(self.tell(member, failure));
            }
            if failed % self.members.len() == 0 {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn attempt<T, F>(
        &self,
        member: usize,
        limit: Duration,
        call: &impl Fn(Arc<Connection>) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let connection = self.connection(member).await?;
        self.in_time(limit, call(connection)).await
    }

    pub(super) async fn refresh_token(&self, member: usize) -> Result<(), Failure> {
        let connection = self.connection(member).await?;
        self.in_time(self.timeout, connection.client.refresh_token())
            .await
    }

    /// Says which member it was, where that helps.
    fn tell(&self, member: usize, failure: Failure) -> Failure {
        let url = self.url(member);
        match failure {
            Failure::NotDone(reason) => Failure::NotDone(format!("etcd at {url}: {reason}")),
            Failure::Unknown(reason) => Failure::Unknown(format!("etcd at {url}: {reason}")),
            refused @ Failure::Refused(_) => refused,
        }
    }
}
