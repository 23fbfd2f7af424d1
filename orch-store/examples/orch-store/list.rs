//! `list`: the keys under a prefix.

use std::io::{self, BufWriter, Write};

use anyhow::Result;
use orch_store::KeyValue;

use crate::Answer;
use crate::access::Access;
use crate::cli::{Format, List};
use crate::show;
use crate::source::Source;

pub(crate) async fn run(access: &Access, arguments: List) -> Result<Answer> {
    let source = Source::open(&arguments.place, access).await?;
    let mut pages = source.pages(&arguments.prefix, arguments.at).await?;
    let mut out = BufWriter::new(io::stdout().lock());
    if arguments.output == Format::Text && !arguments.keys && !arguments.values {
        writeln!(out, "{:>12} {:>8} {:>10}  KEY", "REVISION", "VERSION", "SIZE")?;
    }
    let mut left = arguments.limit.unwrap_or(usize::MAX);
    while let Some(records) = pages.next(left).await? {
        left -= records.len();
        for record in &records {
            print(&mut out, &record.kv, &arguments)?;
        }
    }
    out.flush()?;
    let shown = arguments.limit.unwrap_or(usize::MAX) - left;
    let rest = pages.total().saturating_sub(shown);
    let more = if rest > 0 {
        format!(", {rest} more not shown")
    } else {
        String::new()
    };
    show::note(format_args!(
        "{} at revision {}{more}",
        show::keys(shown as u64),
        pages.revision()
    ));
    Ok(Answer::Yes)
}

fn print(out: &mut impl Write, kv: &KeyValue, arguments: &List) -> io::Result<()> {
    match arguments.output {
        Format::Json if arguments.keys => {
            let mut object = show::object(kv, false);
            object.retain(|name, _| name.starts_with("key"));
            writeln!(out, "{}", serde_json::Value::Object(object))
        }
        Format::Json => {
            let object = show::object(kv, arguments.values);
            writeln!(out, "{}", serde_json::Value::Object(object))
        }
        Format::Text if arguments.keys => writeln!(out, "{}", show::text(&kv.key)),
        Format::Text if arguments.values => {
            writeln!(out, "{}\n{}", show::text(&kv.key), show::text(&kv.value))
        }
        Format::Text => writeln!(
            out,
            "{:>12} {:>8} {:>10}  {}",
            kv.mod_revision,
            kv.version,
            kv.value.len(),
            show::text(&kv.key)
        ),
    }
}
