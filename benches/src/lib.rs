//! Benchmarks of the log.
