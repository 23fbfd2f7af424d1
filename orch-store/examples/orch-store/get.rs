//! `get`: one key.

use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use orch_store::KeyValue;

use crate::Answer;
use crate::access::Access;
use crate::cli::{Format, Get};
use crate::show;
use crate::source::Source;

pub(crate) async fn run(access: &Access, arguments: Get) -> Result<Answer> {
    let source = Source::open(&arguments.place, access).await?;
    let read = source.get(arguments.key.as_bytes(), arguments.at).await?;
    let Some(kv) = read.kv else {
        show::note(format_args!(
            "{} does not exist at revision {}",
            show::text(arguments.key.as_bytes()),
            read.revision
        ));
        return Ok(Answer::No);
    };
    match arguments.output {
        Format::Json => {
            let object = show::object(&kv, !arguments.meta);
            show::line(format_args!("{}", serde_json::Value::Object(object)))?;
        }
        Format::Text if arguments.meta => meta(&kv)?,
        Format::Text => value(&kv)?,
    }
    Ok(Answer::Yes)
}

fn meta(kv: &KeyValue) -> io::Result<()> {
    show::facts(&[
        ("key", show::text(&kv.key).into_owned()),
        ("created at", kv.create_revision.to_string()),
        ("written at", kv.mod_revision.to_string()),
        ("version", kv.version.to_string()),
        ("size", format!("{} bytes", kv.value.len())),
    ])
}

/// The value as it is; a person gets the line ended.
fn value(kv: &KeyValue) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(&kv.value)?;
    if out.is_terminal() && !kv.value.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    out.flush()
}
