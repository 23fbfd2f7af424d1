//! `cargo xtask figures AREA`: measures, prints a table, writes `target/figures/AREA.jsonl`. It does not pass or fail.

mod cluster;

use std::fs;
use std::io::Write;

use anyhow::Context;
use serde::Serialize;

use crate::run::target;

/// What can be measured.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Area {
    /// The whole cluster: start, memory, time to a running Deployment
    Cluster,
}

/// One measured figure, and the aim it is held against.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// The bound to stay under; `None` for a figure that is only reported.
    aim: Option<f64>,
    met: Option<bool>,
}

impl Figure {
    /// A figure that should stay below `aim`.
    fn under(name: impl Into<String>, value: f64, unit: &'static str, aim: f64) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            aim: Some(aim),
            met: Some(value < aim),
        }
    }

    /// A figure without an aim.
    fn report(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            aim: None,
            met: None,
        }
    }
}

/// Measures an area.
pub(crate) fn run(area: Area) -> anyhow::Result<()> {
    let (name, figures) = match area {
        Area::Cluster => ("cluster", cluster::measure()?),
    };
    print(&figures);
    let folder = target().join("figures");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{name}.jsonl"));
    let mut file = fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    for figure in &figures {
        writeln!(file, "{}", serde_json::to_string(figure)?)?;
    }
    println!("\nwritten to {}", path.display());
    Ok(())
}

fn print(figures: &[Figure]) {
    println!("{:<52} {:>10} {:<5} {:>8}  met", "figure", "value", "unit", "aim");
    for figure in figures {
        let aim = figure
            .aim
            .map_or_else(|| "-".to_owned(), |aim| format!("< {aim}"));
        let met = figure.met.map_or("-", |met| if met { "yes" } else { "NO" });
        println!(
            "{:<52} {:>10.1} {:<5} {:>8}  {met}",
            figure.name, figure.value, figure.unit, aim
        );
    }
}
