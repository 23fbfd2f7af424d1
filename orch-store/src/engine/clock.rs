use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 that never go back while the process runs, so that deadlines survive a restart and a
/// step of the system's clock changes none of them meanwhile.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    start_millis: u64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            start: Instant::now(),
            start_millis: millis(since_epoch),
        }
    }

    pub(crate) fn now(&self) -> u64 {
        self.start_millis + millis(self.start.elapsed())
    }

    /// When a key written now with this time to live ends; 0 for never. A part of a millisecond counts as a whole one,
    /// so that nothing ends early.
    pub(crate) fn deadline(&self, ttl: Option<Duration>) -> u64 {
        ttl.map_or(0, |ttl| self.now().saturating_add(millis(ttl)).saturating_add(1))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
