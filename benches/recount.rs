//! `cargo bench -p recount-benches [-- [WORKLOAD...] [--quick]]`: measures, and prints one table.

use std::path::Path;
use std::process::ExitCode;

use recount_benches::arguments::{HELP, Wish};
use recount_benches::bench::Bench;
use recount_benches::machine::Machine;
use recount_benches::{part, table};

fn main() -> ExitCode {
    // The folder of builds; on its disk the measuring is done, since the system's temporary folder may be memory.
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let target = scratch.parent().expect("the target folder");
    let (figures, machine) = (target.join("bench.json"), target.join("bench-machine.json"));
    match Wish::parse(std::env::args().skip(1)) {
        Err(mistake) => {
            eprintln!("{mistake}");
            return ExitCode::from(2);
        }
        Ok(Wish::Help) => print!("{}", *HELP),
        Ok(Wish::Part(words)) => part::play(&words),
        Ok(Wish::Markdown) => match table::markdown(&figures, &machine) {
            Ok(text) => print!("{text}"),
            Err(error) => {
                eprintln!("there are no figures to print, run the benchmarks first: {error}");
                return ExitCode::FAILURE;
            }
        },
        Ok(Wish::Measure { workloads, scale }) => {
            let folder = tempfile::tempdir_in(scratch).expect("a folder");
            let looked_at = Machine::look(folder.path(), scale);
            let mut bench = Bench::new(scale, folder.path());
            eprintln!("{looked_at}");
            for workload in workloads {
                bench.say(&format!("{}: {}", workload.name, workload.about));
                (workload.run)(&mut bench);
            }
            print!("\n{}\n{looked_at}\n", bench.table);
            bench.table.save(&figures).expect("the figures are kept");
            looked_at.save(&machine).expect("the machine is kept");
        }
    }
    ExitCode::SUCCESS
}
