use bytes::Bytes;

use crate::testkit::Fixture;
use crate::testkit::fixture::{bytes, ok};
use crate::{ListOptions, StoreError};

/// What is as large as allowed is kept; what is larger is refused and changes nothing.
pub async fn keys_and_values_have_limits(fixture: &Fixture) {
    let store = fixture.store();
    let limits = fixture.store_limits();
    let long = Bytes::from([b"limits/".to_vec(), vec![b'k'; limits.max_key - 7]].concat());
    let large = Bytes::from(vec![0xa5; limits.max_value]);
    let kv = ok("create", store.create(long, large.clone(), None).await);
    let read = ok("get", store.get(&kv.key, None).await);
    assert!(read.kv == Some(kv.clone()), "the largest value comes back");

    let too_long = Bytes::from(vec![b'k'; limits.max_key + 1]);
    let too_large = Bytes::from(vec![0; limits.max_value + 1]);
    match store.create(too_long.clone(), bytes("v"), None).await {
        Err(StoreError::KeyTooLong { size, limit }) => {
            assert_eq!((size, limit), (limits.max_key + 1, limits.max_key));
        }
        other => panic!("expected KeyTooLong, got {other:?}"),
    }
    let create = store.create(bytes("limits/b"), too_large.clone(), None);
    expect_too_large(create.await.err().as_ref());
    let update = store.update(kv.key.clone(), too_large, kv.mod_revision, None);
    expect_too_large(update.await.err().as_ref());
    let empty = store.create(Bytes::new(), bytes("v"), None).await;
    assert!(matches!(empty, Err(StoreError::EmptyKey)), "{empty:?}");
    let page = fixture.list("limits/", ListOptions::default()).await;
    assert!(page.items == [kv], "nothing else was written");
}

/// Any bytes are a key and any bytes are a value, none included.
pub async fn keys_and_values_are_opaque(fixture: &Fixture) {
    let store = fixture.store();
    let all: Bytes = (0..=255_u8).collect::<Vec<_>>().into();
    for (key, value) in [
        (&b"limits/\0"[..], all.clone()),
        (b"limits/\xff", Bytes::new()),
        (b"limits/ \n\"{}", bytes("{\"not\": json")),
    ] {
        let key = Bytes::from_static(key);
        let kv = ok("create", store.create(key.clone(), value.clone(), None).await);
        assert_eq!((&kv.key, &kv.value), (&key, &value));
        assert_eq!(ok("get", store.get(&key, None).await).kv, Some(kv));
    }
}

fn expect_too_large(error: Option<&StoreError>) {
    assert!(
        matches!(error, Some(StoreError::ValueTooLarge { .. })),
        "expected ValueTooLarge, got {error:?}"
    );
}
