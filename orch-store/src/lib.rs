//! A revisioned key-value store with watch: one trait, in memory or durable on disk.
