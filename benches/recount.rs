//! `cargo bench -p recount-benches [-- [WORKLOAD] [--quick]]`: measures, and prints one table.

use std::path::Path;

use recount_benches::{Plan, Scale, append, rebuild, table::Table};

fn main() {
    // On the disk that the build is on: the system's temporary folder may be memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let quick = arguments.iter().any(|word| word == "--quick");
    let plan = Plan {
        scale: if quick { Scale::Quick } else { Scale::Full },
        filter: arguments.into_iter().find(|word| !word.starts_with('-')),
    };
    let mut criterion = plan.criterion();
    let mut table = Table::default();
    append::run(&plan, &mut criterion, folder.path(), &mut table);
    rebuild::run(&plan, &mut criterion, folder.path(), &mut table);
    print!("\n{table}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the target folder");
    table
        .save(&target.join("bench.json"))
        .expect("the table can be written");
}
