# The same words on a desk and in CI. `just` alone lists them.

_list:
    @just --list

# Runs the main job: a scripted agent whose server dies in the middle of an answer.
demo:
    cargo run --quiet --package recount -- demo

# All tests. The first run installs the pinned real agent into the build folder.
test:
    cargo test --workspace

# Lives of the engine in simulated worlds, so many of them: `just sim 20000`.
sim SEEDS:
    RECOUNT_SEEDS={{SEEDS}} cargo test --package recount-tests --test simulation every_promise -- --nocapture

# One simulated world again, with its trace: when, who, what.
sim-one SEED:
    RECOUNT_SEED={{SEED}} cargo test --quiet --package recount-tests --test simulation every_promise -- --nocapture

# Makes the logs under `tests/fixtures` anew; its README says when.
fixtures:
    cargo test --package recount-tests --test simulation fixtures_are_made -- --ignored
    UPDATE_EXPECT=1 cargo test --package recount-tests --test support fixtures

# Breaks the engine on purpose, in each way of `tests/mutations`, and has the simulation find it.
mutations SEEDS="2000":
    tests/mutations/run {{SEEDS}}

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
