use crate::testkit::Fixture;
use crate::testkit::fixture::ok;
use crate::{KeyValue, ListOptions};
use bytes::Bytes;

/// A prefix is bytes, not path segments, and keys come in the order of their bytes.
pub async fn lists_keep_to_the_prefix_in_byte_order(fixture: &Fixture) {
    let store = fixture.store();
    let keys: [&[u8]; 7] = [
        b"lists/a",
        b"lists/a/1",
        b"lists/a/2",
        b"lists/a0",
        b"lists/b",
        b"lists/\xfe",
        b"lists/\xff\xff",
    ];
    for key in keys.iter().rev() {
        let created = store.create(Bytes::from_static(key), "v".into(), None);
        ok("create", created.await);
    }
    let cases: [(&[u8], &[&[u8]]); 5] = [
        (b"lists/", &keys),
        (b"lists/a", &keys[..4]),
        (b"lists/a/", &keys[1..3]),
        (b"lists/\xff", &keys[6..]),
        (b"lists/c", &[]),
    ];
    for (prefix, expected) in cases {
        let page = ok("list", store.list(prefix, ListOptions::default()).await);
        let found: Vec<&[u8]> = page.items.iter().map(|kv| kv.key.as_ref()).collect();
        assert_eq!(found, expected, "the list of {prefix:?}");
        assert!(!page.more);
    }
}

/// Pages of any size put together are the whole list, and say rightly how much remains.
pub async fn pages_cover_everything_once(fixture: &Fixture) {
    fill(fixture, 25).await;
    fixture.create("lists0", "the neighbour").await;
    let whole = fixture.list("lists/", ListOptions::default()).await;
    assert_eq!(whole.items.len(), 25);
    for limit in [1, 7, 24, 25, 26] {
        let items = pages(fixture, limit).await;
        assert_eq!(items, whole.items, "pages of {limit}");
    }
}

/// The revision of the first page pins all others.
pub async fn pages_of_one_list_show_one_state_while_writers_go_on(fixture: &Fixture) {
    let mut before = fill(fixture, 20).await;
    let mut options = ListOptions::default().limit(3);
    let mut found = Vec::new();
    loop {
        let page = fixture.list("lists/", options.clone()).await;
        options.at = Some(page.revision);
        options.start_after = page.items.last().map(|kv| kv.key.clone());
        found.extend(page.items);
        if !page.more {
            break;
        }
        // Ahead of the reader and behind it: change one, delete one, add one.
        let round = found.len();
        let changed = before[19].clone();
        before[19] = fixture.update(&changed, &format!("late {round}")).await;
        let behind = before[0].clone();
        before[0] = fixture.update(&behind, &format!("late {round}")).await;
        if let Some(victim) = fixture.get(&format!("lists/{:03}", 10 + round / 3)).await {
            fixture.delete(&victim).await;
        }
        fixture.create(&format!("lists/{round:03}-new"), "new").await;
    }
    assert_eq!(found.len(), 20, "the keys of the first page's revision");
    for (index, kv) in found.iter().enumerate() {
        assert_eq!(kv.key, format!("lists/{index:03}"));
        assert_eq!(kv.value, format!("{index}"), "the value of that time");
        assert_eq!(kv.version, 1);
    }
}

/// A page goes on after a key, whether or not that exists.
pub async fn a_page_may_start_after_a_key_that_is_gone(fixture: &Fixture) {
    let items = fill(fixture, 5).await;
    fixture.delete(&items[2]).await;
    for (after, expected) in [
        ("lists/002", &items[3..]),
        ("lists/0025", &items[3..]),
        ("lists/004", &items[5..]),
        ("lists0", &items[5..]),
    ] {
        let options = ListOptions::default().start_after(after);
        let page = fixture.list("lists/", options).await;
        assert_eq!(page.items, expected, "after {after}");
    }
    let options = ListOptions::default().start_after("a key before the prefix");
    let page = fixture.list("lists/", options).await;
    assert_eq!(page.items.len(), 4);
}

/// A limit of nothing with a count is a count.
pub async fn a_list_can_only_count(fixture: &Fixture) {
    fill(fixture, 9).await;
    let page = fixture
        .list("lists/", ListOptions::default().limit(0).count())
        .await;
    assert_eq!(page.items, []);
    assert_eq!(page.remaining, Some(9));
    assert!(page.more);
    let page = fixture
        .list("none/", ListOptions::default().limit(0).count())
        .await;
    assert_eq!(page.remaining, Some(0));
    assert!(!page.more);
}

async fn fill(fixture: &Fixture, count: usize) -> Vec<KeyValue> {
    let mut items = Vec::new();
    for index in 0..count {
        let key = format!("lists/{index:03}");
        items.push(fixture.create(&key, &index.to_string()).await);
    }
    items
}

async fn pages(fixture: &Fixture, limit: usize) -> Vec<KeyValue> {
    let mut options = ListOptions::default().limit(limit).count();
    let mut items: Vec<KeyValue> = Vec::new();
    loop {
        let page = fixture.list("lists/", options.clone()).await;
        assert!(page.items.len() <= limit);
        options.at = Some(page.revision);
        options.start_after = page.items.last().map(|kv| kv.key.clone());
        items.extend(page.items);
        assert_eq!(page.remaining, Some(25 - items.len()));
        assert_eq!(page.more, items.len() < 25);
        if !page.more {
            return items;
        }
    }
}
