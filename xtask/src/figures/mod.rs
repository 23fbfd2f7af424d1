//! `cargo xtask figures AREA`: measures, prints a table, writes `target/figures/AREA.jsonl`. It does not pass or fail.

mod cluster;
mod store;

use std::fs;
use std::io::Write;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::run::target;

/// What can be measured.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Area {
    /// The whole cluster: start, memory, time to a running Deployment
    Cluster,
    /// The store beside etcd: writes, lists, events, memory, recovery; see `-- --help`. Takes a quarter of an hour
    Store,
}

/// One measured figure, and the aim it is held against.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    name: String,
    value: f64,
    unit: String,
    /// The bound to keep, of the ratio in a comparison and else of the value; `None` for a figure that is only reported.
    aim: Option<f64>,
    bound: Option<Bound>,
    met: Option<bool>,
    /// What it is compared with, measured in the same run.
    other: Option<String>,
    other_value: Option<f64>,
    /// How many times better ours is; in a comparison with a bound to stay under, how many times as long it takes.
    ratio: Option<f64>,
}

/// On which side of its aim a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Bound {
    #[serde(rename = "at least")]
    AtLeast,
    #[serde(rename = "at most")]
    AtMost,
}

impl Figure {
    /// A figure that should stay below `aim`.
    fn under(name: impl Into<String>, value: f64, unit: &str, aim: f64) -> Self {
        Self {
            aim: Some(aim),
            bound: Some(Bound::AtMost),
            met: Some(value < aim),
            ..Self::report(name, value, unit)
        }
    }

    /// A figure without an aim.
    fn report(name: impl Into<String>, value: f64, unit: &str) -> Self {
        Self {
            name: name.into(),
            value,
            unit: unit.to_owned(),
            aim: None,
            bound: None,
            met: None,
            other: None,
            other_value: None,
            ratio: None,
        }
    }

    fn aim_text(&self) -> String {
        let Some(aim) = self.aim else {
            return "-".to_owned();
        };
        let sign = match self.bound {
            Some(Bound::AtLeast) => '>',
            Some(Bound::AtMost) | None => '<',
        };
        let times = if self.ratio.is_some() { "x" } else { "" };
        format!("{sign} {aim}{times}")
    }

    fn other_text(&self) -> String {
        match (&self.other, self.other_value) {
            (Some(other), Some(value)) => format!("{} {other}", short(value)),
            _ => "-".to_owned(),
        }
    }
}

/// Measures an area; `arguments` are for the program that measures.
pub(crate) fn run(area: Area, arguments: &[String]) -> anyhow::Result<()> {
    let (name, figures) = match area {
        Area::Cluster => {
            ensure!(arguments.is_empty(), "the cluster's figures take no arguments");
            ("cluster", cluster::measure()?)
        }
        Area::Store => ("store", store::measure(arguments)?),
    };
    if figures.is_empty() {
        return Ok(());
    }
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
    let width =
        |text: &dyn Fn(&Figure) -> usize, least: usize| figures.iter().map(text).fold(least, usize::max);
    let names = width(&|figure| figure.name.len(), "figure".len());
    let others = width(&|figure| figure.other_text().len(), "other".len());
    println!(
        "{:<names$}  {:>9} {:<4} {:<others$}  {:>7}  {:>7}  met",
        "figure", "value", "unit", "other", "ratio", "aim"
    );
    for figure in figures {
        let ratio = figure
            .ratio
            .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}x"));
        let met = figure.met.map_or("-", |met| if met { "yes" } else { "NO" });
        println!(
            "{:<names$}  {:>9} {:<4} {:<others$}  {:>7}  {:>7}  {met}",
            figure.name,
            short(figure.value),
            figure.unit,
            figure.other_text(),
            ratio,
            figure.aim_text(),
        );
    }
}

/// Three digits that count, or all before the point.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}
