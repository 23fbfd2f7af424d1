//! The node ports that are taken, as upstream stores them: one object whose data is a number with a bit for each port, its most
//! significant byte first and without leading zeros.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A set of ports of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortMap {
    range: RangeInclusive<u16>,
    taken: BTreeSet<u16>,
    metadata: Value,
}

/// `v1 RangeAllocation`, which no client sees.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct RangeAllocation {
    kind: String,
    api_version: String,
    #[serde(default)]
    metadata: Value,
    range: String,
    #[serde(default)]
    data: String,
}

impl PortMap {
    pub(super) fn new(range: RangeInclusive<u16>) -> Self {
        Self {
            range,
            taken: BTreeSet::new(),
            metadata: Value::Object(serde_json::Map::new()),
        }
    }

    /// Reads what is stored. The range may have been another one then.
    pub(super) fn read(stored: &[u8], range: RangeInclusive<u16>) -> Result<Self, String> {
        let unreadable =
            |error: &dyn std::fmt::Display| format!("the stored node ports cannot be read: {error}");
        let object: RangeAllocation = serde_json::from_slice(stored).map_err(|error| unreadable(&error))?;
        let first = object
            .range
            .split('-')
            .next()
            .and_then(|first| first.parse().ok());
        let first: u16 = first.ok_or_else(|| unreadable(&format!("range {:?}", object.range)))?;
        let number = STANDARD
            .decode(&object.data)
            .map_err(|error| unreadable(&error))?;
        let mut map = Self::new(range);
        for (index, byte) in number.iter().rev().enumerate() {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                let port = usize::from(first) + index * 8 + bit;
                map.taken.extend(u16::try_from(port).ok());
            }
        }
        map.metadata = object.metadata;
        Ok(map)
    }

    pub(super) fn write(&self) -> Bytes {
        let first = *self.range.start();
        let mut number = Vec::new();
        for port in self.taken.iter().filter(|port| self.range.contains(port)) {
            let index = usize::from(port - first);
            number.resize(number.len().max(index / 8 + 1), 0_u8);
            number[index / 8] |= 1 << (index % 8);
        }
        number.reverse();
        let object = RangeAllocation {
            kind: "RangeAllocation".to_owned(),
            api_version: "v1".to_owned(),
            metadata: self.metadata.clone(),
            range: format!("{first}-{}", self.range.end()),
            data: STANDARD.encode(number),
        };
        serde_json::to_vec(&object)
            .expect("strings and JSON serialise")
            .into()
    }

    /// Takes a port; false when it is taken, or outside of the range.
    pub(super) fn take(&mut self, port: u16) -> bool {
        self.range.contains(&port) && self.taken.insert(port)
    }

    /// Gives a port back; false when it was not taken.
    pub(super) fn release(&mut self, port: u16) -> bool {
        self.taken.remove(&port)
    }

    pub(super) fn has(&self, port: u16) -> bool {
        self.taken.contains(&port)
    }

    /// What is taken, in order.
    pub(super) fn taken(&self) -> impl Iterator<Item = u16> {
        self.taken.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_back_as_they_were_stored() {
        let mut ports = PortMap::new(30000..=32767);
        for port in [30000, 30009, 32767] {
            assert!(ports.take(port));
            assert!(!ports.take(port), "once");
        }
        assert!(!ports.take(80), "outside of the range");
        let stored = ports.write();
        assert_eq!(PortMap::read(&stored, 30000..=32767).unwrap(), ports);
        assert!(ports.release(30009) && !ports.release(30009));
        assert_eq!(ports.taken().collect::<Vec<_>>(), [30000, 32767]);
    }

    #[test]
    fn the_form_is_that_of_upstream() {
        let mut ports = PortMap::new(30000..=32767);
        ports.take(30000);
        ports.take(30009);
        let stored: Value = serde_json::from_slice(&ports.write()).unwrap();
        assert_eq!(stored["kind"], "RangeAllocation");
        assert_eq!(stored["range"], "30000-32767");
        // The number 2^9 + 2^0, two bytes, the most significant first.
        assert_eq!(stored["data"], STANDARD.encode([2, 1]));
    }

    #[test]
    fn a_range_that_begins_elsewhere_keeps_its_ports() {
        let mut ports = PortMap::new(30000..=30010);
        ports.take(30005);
        let moved = PortMap::read(&ports.write(), 30004..=30020).unwrap();
        assert_eq!(moved.taken().collect::<Vec<_>>(), [30005]);
        assert!(PortMap::read(b"{}", 1..=2).is_err());
    }
}
