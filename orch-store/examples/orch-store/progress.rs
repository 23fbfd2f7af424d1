//! Bars on the standard error, if that is a terminal.

use std::fmt;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

const KEYS: &str = "{msg:>10} [{bar:40}] {human_pos}/{human_len} keys, {rate}, {eta} left";
const BYTES: &str = "{msg:>10} [{bar:40}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";

/// Counts keys.
pub(crate) fn keys(what: &'static str, total: u64) -> ProgressBar {
    bar(what, total, KEYS)
}

/// Counts bytes.
pub(crate) fn bytes(what: &'static str, total: u64) -> ProgressBar {
    bar(what, total, BYTES)
}

/// Turns while something is waited for whose end is not known. It goes when it is dropped.
pub(crate) fn spinner(what: String) -> Spinner {
    let bar = ProgressBar::new_spinner().with_message(what);
    bar.enable_steady_tick(Duration::from_millis(100));
    Spinner(bar)
}

pub(crate) struct Spinner(ProgressBar);

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn bar(what: &'static str, total: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the templates above are valid");
    let style = style.with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
        // The bar shows what it can.
        write!(out, "{:.0} keys/s", state.per_sec()).ok();
    });
    // Draws to the standard error, and nothing if that is no terminal.
    ProgressBar::new(total)
        .with_style(style.progress_chars("=> "))
        .with_message(what)
}
