//! A whole cluster in one process.

fn main() {}
