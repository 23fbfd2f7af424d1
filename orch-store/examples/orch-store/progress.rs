//! Bars on the standard error, if that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

const KEYS: &str = "{msg:>10} [{bar:40}] {human_pos}/{human_len} keys, {per_sec:.0}, {eta} left";
const BYTES: &str = "{msg:>10} [{bar:40}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";

/// Counts keys.
pub(crate) fn keys(what: &'static str, total: u64) -> ProgressBar {
    bar(what, total, KEYS)
}

/// Counts bytes.
pub(crate) fn bytes(what: &'static str, total: u64) -> ProgressBar {
    bar(what, total, BYTES)
}

fn bar(what: &'static str, total: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the templates above are valid");
    // Draws to the standard error, and nothing if that is no terminal.
    ProgressBar::new(total)
        .with_style(style.progress_chars("=> "))
        .with_message(what)
}
