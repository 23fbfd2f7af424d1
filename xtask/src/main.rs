//! Development tasks: set up real peers, run what CI runs, measure figures.

fn main() {}
