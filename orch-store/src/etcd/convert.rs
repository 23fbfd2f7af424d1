//! etcd's messages as our types, without copying what they carry.

use bytes::Bytes;
use etcd_client::TxnResponse;
use etcd_client::proto::{PbEvent, PbKeyValue, PbRangeResponse, PbResponseHeader, PbTxnOpResponse};

use crate::{Event, EventKind, KeyValue, Revision};

/// The type of a deletion in etcd's events.
const DELETE: i32 = 1;

pub(super) fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

/// etcd's revisions are signed, ours are not.
pub(super) fn signed(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

pub(super) fn header(header: Option<&PbResponseHeader>) -> Revision {
    revision(header.map_or(0, |header| header.revision))
}

pub(super) fn key_value(kv: PbKeyValue) -> KeyValue {
    KeyValue {
        key: Bytes::from(kv.key),
        value: Bytes::from(kv.value),
        create_revision: revision(kv.create_revision),
        mod_revision: revision(kv.mod_revision),
        version: u64::try_from(kv.version).unwrap_or(0),
    }
}

/// The event, or `None` when what was there before it has been compacted away.
pub(super) fn event(event: PbEvent) -> Option<Event> {
    let kv = key_value(event.kv?);
    let previous = event.prev_kv.map(key_value);
    if event.r#type != DELETE {
        let is_creation = kv.create_revision == kv.mod_revision;
        return (is_creation || previous.is_some()).then(|| Event {
            kind: EventKind::Put,
            kv,
            previous: previous.filter(|_| !is_creation),
        });
    }
    let previous = previous?;
    let kv = KeyValue {
        // etcd tells these as zero.
        create_revision: previous.create_revision,
        version: previous.version,
        ..kv
    };
    Some(Event {
        kind: EventKind::Delete,
        kv,
        previous: Some(previous),
    })
}

/// What a transaction's operation at `index` read, if it was a read.
pub(super) fn range(response: &mut TxnResponse, index: usize) -> Option<PbRangeResponse> {
    match response.0.responses.get_mut(index)?.response.take()? {
        PbTxnOpResponse::ResponseRange(range) => Some(range),
        _ => None,
    }
}

/// What a transaction's only operation deleted, if it did.
pub(super) fn deleted(response: &mut TxnResponse) -> Option<KeyValue> {
    match response.0.responses.first_mut()?.response.take()? {
        PbTxnOpResponse::ResponseDeleteRange(mut deletion) => deletion.prev_kvs.pop().map(key_value),
        _ => None,
    }
}

/// The first key after all that begin with `prefix`; `None` when there is none such.
pub(super) fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// As [`end_of`], the way etcd says "no end".
pub(super) fn range_end(prefix: &[u8]) -> Vec<u8> {
    end_of(prefix).unwrap_or_else(|| vec![0])
}

/// The first key with `prefix`: etcd takes no empty key.
pub(super) fn range_start(prefix: &[u8]) -> Vec<u8> {
    if prefix.is_empty() {
        vec![0]
    } else {
        prefix.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_key_without_it() {
        for (prefix, end) in [
            (&b"/registry/pods/"[..], Some(&b"/registry/pods0"[..])),
            (b"a\xff", Some(b"b")),
            (b"\xff\xff", None),
            (b"", None),
        ] {
            assert_eq!(end_of(prefix).as_deref(), end);
        }
        assert_eq!(range_end(b""), [0]);
        assert_eq!(range_start(b""), [0]);
    }

    fn kv(revision: i64, create: i64) -> PbKeyValue {
        PbKeyValue {
            key: b"k".to_vec(),
            value: b"v".to_vec(),
            create_revision: create,
            mod_revision: revision,
            version: revision - create + 1,
            lease: 0,
        }
    }

    fn message(kind: i32, kv: PbKeyValue, previous: Option<PbKeyValue>) -> PbEvent {
        PbEvent {
            r#type: kind,
            kv: Some(kv),
            prev_kv: previous,
        }
    }

    #[test]
    fn a_change_whose_past_is_gone_is_no_event() {
        assert!(event(message(0, kv(5, 5), None)).is_some_and(|event| event.is_create()));
        assert!(event(message(0, kv(6, 5), None)).is_none());
        assert!(event(message(DELETE, kv(7, 7), None)).is_none());
        let deletion = event(message(DELETE, kv(7, 7), Some(kv(6, 5)))).unwrap();
        assert_eq!(deletion.kind, EventKind::Delete);
        assert_eq!(deletion.revision(), Revision(7));
        assert_eq!(
            (deletion.kv.create_revision, deletion.kv.version),
            (Revision(5), 2)
        );
    }
}
