//! etcd's leases, by which keys end. Keys whose times end about together share one, as kube-apiserver does it: a lease costs
//! etcd far more than a key.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::GetOptions;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::convert::{range_end, range_start};
use super::failure::Failure;
use super::members::Members;

/// How many keys share a lease.
const KEYS: u32 = 1000;

/// Leases that are still good for further keys, by the time to live in seconds that was asked for.
#[derive(Default)]
pub(super) struct Leases {
    open: Mutex<HashMap<u64, Lease>>,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    id: i64,
    /// When it ends at the earliest.
    ends: Instant,
    keys: u32,
}

impl Leases {
    /// A lease that ends at least `ttl` from now, and a little later at most: see [`slack`].
    pub(super) async fn get(&self, members: &Arc<Members>, ttl: Duration) -> Result<i64, Failure> {
        let seconds = seconds(ttl);
        // Held while a lease is granted, so that writers who come together share it.
        let mut open = self.open.lock().await;
        let now = Instant::now();
        if let Some(lease) = open.get_mut(&seconds)
            && lease.keys < KEYS
            && now + Duration::from_secs(seconds) <= lease.ends
        {
            lease.keys += 1;
            return Ok(lease.id);
        }
        open.retain(|_, lease| lease.ends > now);
        let length = seconds + slack(seconds);
        let signed = i64::try_from(length).unwrap_or(i64::MAX);
        let grant = members
            .write(|connection| async move { connection.client.lease_client().grant(signed, None).await });
        let id = grant.await?.id();
        let lease = Lease {
            id,
            // etcd counts from later on than this.
            ends: now + Duration::from_secs(length),
            keys: 1,
        };
        open.insert(seconds, lease);
        Ok(id)
    }

    /// This one has ended, against expectation.
    pub(super) async fn forget(&self, id: i64) {
        self.open.lock().await.retain(|_, lease| lease.id != id);
    }
}

/// How many keys are looked at with one call.
const PAGE: i64 = 10_000;

/// The keys with `prefix` that end by themselves, and in what time at the earliest.
pub(super) async fn times_to_live(
    members: &Members,
    prefix: &[u8],
) -> Result<HashMap<Bytes, Duration>, Failure> {
    let mut by_lease: HashMap<i64, Vec<Bytes>> = HashMap::new();
    let mut start = range_start(prefix);
    loop {
        let options = GetOptions::new()
            .with_range(range_end(prefix))
            .with_limit(PAGE)
            .with_keys_only();
        let page = members.read(|connection| {
            let (start, options) = (start.clone(), options.clone());
            async move { connection.kv.clone().get(start, Some(options)).await }
        });
        let page = page.await?.0;
        let Some(last) = page.kvs.last() else { break };
        start = [&last.key[..], &[0]].concat();
        for kv in page.kvs.into_iter().filter(|kv| kv.lease != 0) {
            by_lease.entry(kv.lease).or_default().push(kv.key.into());
        }
        if !page.more {
            break;
        }
    }
    let mut times = HashMap::new();
    for (lease, keys) in by_lease {
        let ask = members.read(|connection| async move {
            connection.client.lease_client().time_to_live(lease, None).await
        });
        // A negative number stands for a lease that has ended since.
        let seconds = u64::try_from(ask.await?.ttl()).unwrap_or(0);
        times.extend(keys.into_iter().map(|key| (key, Duration::from_secs(seconds))));
    }
    Ok(times)
}

/// etcd counts in seconds; a part of one counts as a whole, so that nothing ends early.
fn seconds(ttl: Duration) -> u64 {
    let whole = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    whole.clamp(1, i32::MAX as u64)
}

/// By how many seconds a key may outlive its time, so that others can share its lease: a twentieth, from one second to a
/// minute.
fn slack(seconds: u64) -> u64 {
    (seconds / 20).clamp(1, 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_ends_early_and_none_much_too_late() {
        for (millis, expected) in [(1, 1), (1000, 1), (1001, 2), (3_600_000, 3600)] {
            assert_eq!(seconds(Duration::from_millis(millis)), expected);
        }
        for (seconds, expected) in [(1, 1), (100, 5), (3600, 60)] {
            assert_eq!(slack(seconds), expected);
        }
    }
}
