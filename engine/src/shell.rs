//! The async shell: record, then do.
