//! How keys, values and numbers are printed.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use orch_store::KeyValue;
use serde_json::{Map, Value, json};

/// Bytes for people: as they are if they are plain text, or else escaped, so that nothing reaches the terminal's controls.
pub(crate) fn text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.into(),
        _ => bytes.escape_ascii().to_string().into(),
    }
}

/// A key as a JSON object; with its value, or else its size.
pub(crate) fn object(kv: &KeyValue, with_value: bool) -> Map<String, Value> {
    let mut object = Map::new();
    put_bytes(&mut object, "key", &kv.key);
    object.insert("create_revision".into(), json!(kv.create_revision.0));
    object.insert("mod_revision".into(), json!(kv.mod_revision.0));
    object.insert("version".into(), json!(kv.version));
    object.insert("size".into(), json!(kv.value.len()));
    if with_value {
        put_bytes(&mut object, "value", &kv.value);
    }
    object
}

fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), json!(text)),
        Err(_) => object.insert(format!("{name}_base64"), json!(STANDARD.encode(bytes))),
    };
}

/// A name and what there is to say of it, a line each.
pub(crate) fn facts(facts: &[(&str, String)]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let longest = facts.iter().map(|(name, _)| name.len()).max();
    // At least as wide as the longest name that is used everywhere, so that further facts stand below.
    let width = longest.unwrap_or(0).max("compacted".len());
    for (name, fact) in facts {
        writeln!(out, "{name:width$}  {fact}")?;
    }
    Ok(())
}

/// A line for people.
pub(crate) fn line(line: fmt::Arguments<'_>) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// A line for people beside what is printed for programs.
pub(crate) fn note(note: fmt::Arguments<'_>) {
    // If nobody can read it, nobody misses it.
    writeln!(io::stderr().lock(), "{note}").ok();
}

pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

pub(crate) fn keys(count: u64) -> String {
    match count {
        1 => "1 key".to_owned(),
        count => format!("{count} keys"),
    }
}

/// How long something took, and how many keys a second that was.
pub(crate) fn pace(count: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    format!(
        "in {seconds:.1} s ({:.0} keys/s)",
        count as f64 / seconds.max(0.001)
    )
}
