//! Example binaries; see the folders beside this one.
