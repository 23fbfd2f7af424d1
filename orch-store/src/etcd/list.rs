use etcd_client::GetOptions;
use etcd_client::proto::PbRangeResponse;

use super::convert::{header, key_value, range_end, range_start, signed};
use super::failure::Failure;
use super::feed::is_mark;
use super::history::History;
use super::members::Members;
use crate::{KeyValue, ListOptions, ListPage, Revision, StoreError};

/// How many keys are asked for first, when nothing is known of their size.
const FIRST_PAGE: usize = 500;

/// What a further page should come to in bytes.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Lists in pages that neither side has to hold whole, all at the revision of the first.
pub(super) async fn list(
    members: &Members,
    history: &History,
    prefix: &[u8],
    options: &ListOptions,
) -> Result<ListPage, StoreError> {
    if options.at == Some(Revision::ZERO) {
        history.check(Revision::ZERO).await?;
        return Ok(Listing::new(prefix, options).into_page());
    }
    loop {
        let mut listing = Listing::new(prefix, options);
        let failure = loop {
            match listing.page(members).await {
                Ok(true) => return Ok(listing.into_page()),
                Ok(false) => {}
                Err(failure) => break failure,
            }
        };
        let error = history.explain(failure, listing.at).await;
        // Compaction overtook a list that had not asked for a revision: begin again with a newer one.
        if !error.is_compacted() || options.at.is_some() {
            return Err(error);
        }
    }
}

/// A list under way.
struct Listing<'a> {
    prefix: &'a [u8],
    options: &'a ListOptions,
    /// What to ask for next.
    start: Vec<u8>,
    /// Zero until the first page tells.
    at: Revision,
    items: Vec<KeyValue>,
    bytes: usize,
    beyond: usize,
}

impl<'a> Listing<'a> {
    fn new(prefix: &'a [u8], options: &'a ListOptions) -> Self {
        let start = match &options.start_after {
            Some(key) if key.as_ref() >= prefix => after(key),
            _ => range_start(prefix),
        };
        Self {
            prefix,
            options,
            start,
            at: options.at.unwrap_or_default(),
            items: Vec::new(),
            bytes: 0,
            beyond: 0,
        }
    }

    /// Gets the next page; true when the list is complete.
    async fn page(&mut self, members: &Members) -> Result<bool, Failure> {
        let want = self.want();
        let mut options = GetOptions::new()
            .with_range(range_end(self.prefix))
            .with_revision(signed(self.at));
        options = match want {
            0 => options.with_count_only(),
            want => options.with_limit(i64::try_from(want).unwrap_or(i64::MAX)),
        };
        let read = members.read(|connection| {
            let (start, options) = (self.start.clone(), options.clone());
            async move { connection.kv.clone().get(start, Some(options)).await }
        });
        let response = read.await?.0;
        self.take(response);
        Ok(self.beyond == 0 || self.want() == 0)
    }

    /// How many further keys to ask for; 0 when there are enough.
    fn want(&self) -> usize {
        let rest = self
            .options
            .limit
            .unwrap_or(usize::MAX)
            .saturating_sub(self.items.len());
        let page = match self.bytes / self.items.len().max(1) {
            0 => FIRST_PAGE,
            average => (PAGE_BYTES / average).clamp(8, 10_000),
        };
        rest.min(page)
    }

    fn take(&mut self, response: PbRangeResponse) {
        if self.at == Revision::ZERO {
            self.at = header(response.header.as_ref());
        }
        let count = usize::try_from(response.count).unwrap_or(0);
        self.beyond = count.saturating_sub(response.kvs.len());
        if let Some(last) = response.kvs.last() {
            self.start = after(&last.key);
        }
        for kv in response.kvs {
            if is_mark(&kv.key) {
                continue;
            }
            self.bytes += kv.key.len() + kv.value.len();
            self.items.push(key_value(kv));
        }
    }

    fn into_page(self) -> ListPage {
        ListPage {
            items: self.items,
            revision: self.at,
            more: self.beyond > 0,
            remaining: self.options.count.then_some(self.beyond),
        }
    }
}

/// The first key after this one.
fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn pages_grow_and_shrink_with_what_is_in_them() {
        let options = ListOptions::default();
        let mut listing = Listing::new(b"a", &options);
        assert_eq!(listing.want(), FIRST_PAGE);
        let item = |size: usize| KeyValue {
            key: Bytes::new(),
            value: vec![0; size].into(),
            create_revision: Revision(2),
            mod_revision: Revision(2),
            version: 1,
        };
        for (size, expected) in [(10, 10_000), (8192, 1024), (2_000_000, 8)] {
            listing.items = vec![item(size)];
            listing.bytes = size;
            assert_eq!(listing.want(), expected, "keys of {size} bytes");
        }
        let options = ListOptions::default().limit(3);
        let mut listing = Listing::new(b"a", &options);
        assert_eq!(listing.want(), 3);
        listing.items = vec![item(1); 3];
        assert_eq!(listing.want(), 0);
    }
}
