//! Growing delays between attempts, with upstream's numbers: 10 s, doubled each time up to 5 min, forgotten after 10 min.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

const INITIAL: SignedDuration = SignedDuration::from_secs(10);
const MAX: SignedDuration = SignedDuration::from_secs(300);
const FORGET: SignedDuration = SignedDuration::from_secs(600);

/// The delays of any number of things, by key.
#[derive(Debug, Default)]
pub(crate) struct Backoffs(HashMap<String, Entry>);

#[derive(Debug, Clone, Copy)]
struct Entry {
    delay: SignedDuration,
    updated: Timestamp,
}

impl Backoffs {
    /// When the next attempt is due after one that ended at `since`, with the delay; `None`: now.
    pub(crate) fn due(
        &self,
        key: &str,
        since: Timestamp,
        now: Timestamp,
    ) -> Option<(Timestamp, SignedDuration)> {
        let entry = self
            .0
            .get(key)
            .filter(|entry| now.duration_since(entry.updated) <= FORGET)?;
        let due = since + entry.delay;
        (due > now).then_some((due, entry.delay))
    }

    /// Takes note of an attempt that is made now: the next one waits longer.
    pub(crate) fn next(&mut self, key: &str, now: Timestamp) {
        let entry = self
            .0
            .get(key)
            .filter(|entry| now.duration_since(entry.updated) <= FORGET);
        let delay = entry.map_or(INITIAL, |entry| (entry.delay * 2).min(MAX));
        self.0.insert(key.to_owned(), Entry { delay, updated: now });
    }
}

/// A duration as upstream prints it: `10s`, `2m40s`.
pub(crate) fn short(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_five_minutes_and_are_forgotten_after_ten() {
        let mut backoffs = Backoffs::default();
        let mut now = Timestamp::UNIX_EPOCH;
        assert_eq!(
            backoffs.due("a", now, now),
            None,
            "the first attempt is made at once"
        );
        let mut delays = Vec::new();
        for _ in 0..7 {
            backoffs.next("a", now);
            let (due, delay) = backoffs.due("a", now, now).unwrap();
            delays.push(short(delay));
            assert_eq!(backoffs.due("a", now, due), None);
            now = due;
        }
        assert_eq!(delays, ["10s", "20s", "40s", "1m20s", "2m40s", "5m0s", "5m0s"]);
        now += SignedDuration::from_secs(601);
        assert_eq!(backoffs.due("a", now, now), None);
        backoffs.next("a", now);
        assert_eq!(backoffs.due("a", now, now).unwrap().1, INITIAL);
    }
}
