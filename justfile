# The same words on a desk and in CI. `just` alone lists them.

_list:
    @just --list

# Runs the main job: a scripted agent whose server dies in the middle of an answer.
demo:
    cargo run --quiet --package recount -- demo

# All tests. The first run installs the pinned real agent into the build folder.
test:
    cargo test --workspace

# Formats.
fmt:
    cargo fmt --all

# Lints, as CI does.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- --deny warnings

# All benchmarks, or some: `just bench append`, `just bench --quick`.
bench *ARGS:
    cargo bench --package recount-benches -- {{ARGS}}

# Looks for bytes that break the store, for so many seconds each: `just fuzz 60`, `just fuzz 600 open`.
fuzz SECONDS *TARGETS:
    store/fuzz/run {{SECONDS}} {{TARGETS}}

# Licences, sources and bans; and advisories, which needs the advisory database.
deny:
    cargo deny check
