use std::collections::BTreeMap;

use jiff::Timestamp;

use super::*;

const DOCUMENT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kinds.md"));

/// The rows of the table in docs/kinds.md: group/version and kind, with what is said of them.
fn documented() -> BTreeMap<(String, String), String> {
    DOCUMENT
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| {
            let cells: Vec<&str> = line
                .split('|')
                .map(|cell| cell.trim().trim_matches('`'))
                .collect();
            ((cells[0].to_owned(), cells[1].to_owned()), cells[2].to_owned())
        })
        .collect()
}

#[test]
fn the_documented_table_is_what_is_served() {
    let served: BTreeMap<_, _> = builtin()
        .iter()
        .map(|strategy| {
            let info = strategy.info();
            (
                (info.api_version().into_owned(), info.kind.to_string()),
                info.plural.to_string(),
            )
        })
        .collect();
    let documented = documented();
    for (kind, state) in &documented {
        match state.as_str() {
            "shipped" | "partial" => {
                assert!(served.contains_key(kind), "{kind:?} is documented but not served")
            }
            "refused" => assert!(
                !served.contains_key(kind),
                "{kind:?} is served but documented as refused"
            ),
            other => panic!("{kind:?} has the unknown state {other}"),
        }
    }
    for kind in served.keys() {
        assert!(
            documented.contains_key(kind),
            "{kind:?} is served but not documented"
        );
    }
}

#[test]
fn every_kind_is_stored_and_named_once() {
    let (mut paths, mut short) = (BTreeMap::new(), BTreeMap::new());
    // Views of what another version stores share its place and its names.
    for strategy in builtin().iter().filter(|one| one.storage_version().is_none()) {
        let info = strategy.info();
        let path = info.storage_path.to_string();
        if let Some(other) = paths.insert(path.clone(), info.kind.clone()) {
            panic!("{other} and {} are both stored at {path}", info.kind);
        }
        for name in info.short_names.iter() {
            if let Some(other) = short.insert(name.clone(), info.kind.clone()) {
                panic!("{other} and {} are both called {name}", info.kind);
            }
        }
    }
}

#[test]
fn every_empty_object_goes_through_all_rules() {
    let now = Timestamp::UNIX_EPOCH;
    for strategy in builtin() {
        let info = strategy.info();
        let json = serde_json::json!({"apiVersion": info.api_version(), "kind": info.kind, "metadata": {"name": "a"}});
        let mut object = strategy.decode(json.to_string().as_bytes()).unwrap().object;
        strategy.default(&mut *object);
        strategy.prepare_for_create(&mut *object);
        let old = object.clone();
        strategy.prepare_for_update(&mut *object, &*old);
        assert_eq!(
            object.metadata().generation,
            old.metadata().generation,
            "{}",
            info.kind
        );
        strategy.prepare_for_status_update(&mut *object, &*old);
        strategy.validate(&*object);
        strategy.validate_update(&*object, &*old);
        strategy.validate_status_update(&*object, &*old);
        let (columns, cells) = (strategy.columns().len(), strategy.cells(&*object, now).len());
        assert_eq!(columns, cells, "columns and cells of {}", info.kind);
        strategy.warnings(&*object, None);
    }
}

#[test]
fn defaults_are_the_same_the_second_time() {
    for strategy in builtin() {
        let info = strategy.info();
        let json = serde_json::json!({"apiVersion": info.api_version(), "kind": info.kind, "metadata": {"name": "a"}});
        let mut object = strategy.decode(json.to_string().as_bytes()).unwrap().object;
        strategy.default(&mut *object);
        let once = object.to_value();
        strategy.default(&mut *object);
        assert_eq!(object.to_value(), once, "{}", info.kind);
    }
}
