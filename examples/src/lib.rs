//! Binaries that assemble orch's parts; see the folders beside this one.

/// README's examples, held to the code.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
