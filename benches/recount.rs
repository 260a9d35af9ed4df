//! `cargo bench -p recount-benches [-- [WORKLOAD] [--quick]]`: measures, and prints one table.

use std::path::Path;

use recount_benches::{Scale, append, rebuild, table::Table};

fn main() {
    // On the disk that the build is on: the system's temporary folder may be memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let scale = if std::env::args().any(|argument| argument == "--quick") {
        Scale::Quick
    } else {
        Scale::Full
    };
    let mut criterion = scale.criterion();
    let mut table = Table::default();
    append::run(&mut criterion, scale, folder.path(), &mut table);
    rebuild::run(&mut criterion, scale, folder.path(), &mut table);
    print!("\n{table}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("the target folder");
    table
        .save(&target.join("bench.json"))
        .expect("the table can be written");
}
