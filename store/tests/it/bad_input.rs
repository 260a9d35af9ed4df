//! What is no log is refused with its reason, and left as it is.

use std::fs;
use std::path::{Path, PathBuf};

use recount_store::{Error, Expected, Log, LogReader, Position};
use redb::{ConcurrencyMode, Database, TableDefinition};

use crate::{runtime, said, session};

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.push((path.clone(), Vec::new()));
            found.extend(contents(&path));
        } else {
            found.push((path.clone(), fs::read(&path).expect("a file")));
        }
    }
    found.sort();
    found
}

/// Makes a folder as `prepare` says, opens it both ways, and gives what was said; nothing may change.
fn refused(prepare: impl FnOnce(&Path)) -> (Error, Error) {
    let folder = tempfile::tempdir().expect("a folder");
    prepare(folder.path());
    let before = contents(folder.path());
    let writing = Log::open(folder.path()).expect_err("refused");
    assert_eq!(contents(folder.path()), before, "{writing}");
    let reading = LogReader::open(folder.path()).expect_err("refused");
    assert_eq!(contents(folder.path()), before, "{reading}");
    (writing, reading)
}

fn not_a_log(prepare: impl FnOnce(&Path)) {
    let (writing, reading) = refused(prepare);
    for error in [writing, reading] {
        assert!(
            matches!(&error, Error::NotALog { path, .. } if path.ends_with("log.redb")),
            "{error:?}"
        );
    }
}

/// The bytes of a good log with some events.
fn good_log() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::open(folder.path()).expect("a log");
    runtime().block_on(async {
        for n in 0..300_u32 {
            let stream = session(u8::try_from(n % 7).expect("small"));
            log.append(stream, Expected::Any, vec![said("x".repeat(500))])
                .await
                .expect("appended");
        }
        log.close().await.expect("closed");
    });
    fs::read(folder.path().join("log.redb")).expect("a file")
}

#[test]
fn a_folder_of_something_else() {
    let (writing, reading) = refused(|folder| {
        fs::create_dir(folder.join("servers")).expect("a folder");
        fs::write(folder.join("thesis.tex"), "x").expect("a file");
        fs::write(folder.join("z"), "x").expect("a file");
    });
    assert!(
        matches!(&writing, Error::NotADataDirectory { found, .. } if found == "thesis.tex"),
        "{writing:?}"
    );
    assert!(matches!(reading, Error::NoLog { .. }), "{reading:?}");
}

#[test]
fn what_the_engine_keeps_there_is_no_obstacle() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("servers")).expect("a folder");
    fs::write(folder.path().join("log.redb.new-1-0"), "half").expect("a file");
    drop(Log::open(folder.path()).expect("a log"));
    let names: Vec<_> = contents(folder.path())
        .into_iter()
        .map(|(path, _)| path.file_name().expect("a name").to_owned())
        .collect();
    assert_eq!(names, ["journal-a", "journal-b", "log.redb", "servers"]);
}

#[test]
fn no_log_is_no_log() {
    let folder = tempfile::tempdir().expect("a folder");
    for path in [folder.path().to_owned(), folder.path().join("missing")] {
        let error = LogReader::open(&path).expect_err("nothing is there");
        assert!(matches!(error, Error::NoLog { .. }), "{error:?}");
    }
    assert_eq!(contents(folder.path()), []);
}

#[test]
fn files_that_are_no_log() {
    not_a_log(|folder| fs::write(folder.join("log.redb"), "").expect("a file"));
    not_a_log(|folder| fs::write(folder.join("log.redb"), "Dear diary").expect("a file"));
    not_a_log(|folder| fs::write(folder.join("log.redb"), vec![0; 100_000]).expect("a file"));
    not_a_log(|folder| fs::create_dir(folder.join("log.redb")).expect("a folder"));
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    not_a_log(|folder| fs::write(folder.join("log.redb"), noise).expect("a file"));
}

const CUT_SHORT: &str = "the log is damaged at position 1: its file is cut short";

#[test]
fn a_log_that_was_cut_is_not_made_worse() {
    let good = good_log();
    let cut = |keep: usize| {
        let bytes = &good[..keep];
        refused(|folder| fs::write(folder.join("log.redb"), bytes).expect("a file"))
    };
    for keep in [1, 9, 64, 320, 4096, 8192] {
        not_a_log(|folder| fs::write(folder.join("log.redb"), &good[..keep]).expect("a file"));
    }
    // What says that it is a log is still there.
    for keep in [good.len() / 4, good.len() / 2] {
        let (writing, reading) = cut(keep);
        assert_eq!([writing.to_string(), reading.to_string()], [CUT_SHORT; 2]);
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_each_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.redb");
    let good = good_log();
    fs::write(&path, &good).expect("a file");
    let reader = LogReader::open(folder.path()).expect("a log");
    fs::write(&path, &good[..good.len() / 4]).expect("a file");
    for _ in 0..3 {
        let told = reader.read_all(Position::FIRST).find_map(Result::err);
        assert_eq!(told.expect("it fails").to_string(), CUT_SHORT);
    }
}

#[test]
fn databases_of_something_else() {
    const TABLE: TableDefinition<&str, u64> = TableDefinition::new("notes");
    const META: TableDefinition<u64, u64> = TableDefinition::new("meta");
    let database = |path: &Path, mode| {
        redb::Builder::new()
            .set_concurrency_mode(mode)
            .create(path)
            .expect("a database")
    };
    let fill = |database: &Database| {
        let transaction = database.begin_write().expect("a transaction");
        transaction
            .open_table(TABLE)
            .expect("a table")
            .insert("a", 1)
            .expect("a row");
        transaction
            .open_table(META)
            .expect("a table")
            .insert(1, 1)
            .expect("a row");
        transaction.commit().expect("a commit");
    };
    for mode in [
        ConcurrencyMode::ExclusiveWriter,
        ConcurrencyMode::SingleWriter,
    ] {
        not_a_log(|folder| drop(database(&folder.join("log.redb"), mode)));
        not_a_log(|folder| fill(&database(&folder.join("log.redb"), mode)));
        // Not closed cleanly: a copy of the file while it is open.
        not_a_log(|folder| {
            let elsewhere = tempfile::tempdir().expect("a folder");
            let path = elsewhere.path().join("file");
            let database = database(&path, mode);
            fill(&database);
            fs::copy(&path, folder.join("log.redb")).expect("a copy");
        });
    }
}

#[test]
fn a_log_of_a_newer_release() {
    let meta: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
    let (writing, reading) = refused(|folder| {
        drop(Log::open(folder).expect("a log"));
        let database = redb::Builder::new()
            .set_concurrency_mode(ConcurrencyMode::SingleWriter)
            .open(folder.join("log.redb"))
            .expect("a database");
        let transaction = database.begin_write().expect("a transaction");
        transaction
            .open_table(meta)
            .expect("a table")
            .insert("format", 2_u32.to_le_bytes().as_slice())
            .expect("a row");
        transaction.commit().expect("a commit");
    });
    for error in [writing, reading] {
        assert!(
            matches!(
                error,
                Error::NewerLog {
                    found: 2,
                    known: 1,
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

#[test]
fn paths_that_cannot_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "x").expect("a file");
    for path in [file.clone(), file.join("below")] {
        for error in [
            Log::open(&path).expect_err("refused"),
            LogReader::open(&path).expect_err("refused"),
        ] {
            assert!(
                matches!(&error, Error::Io { source, .. }
                    if matches!(source.kind(), std::io::ErrorKind::NotADirectory | std::io::ErrorKind::AlreadyExists)),
                "{error:?}"
            );
        }
    }
    assert_eq!(contents(folder.path()), [(file, b"x".to_vec())]);
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_look() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("data");
    drop(Log::open(&directory).expect("a log"));
    let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&directory.join("log.redb")), 0o600);
}

#[test]
fn one_writer_in_one_process_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::open(folder.path()).expect("a log");
    let error = Log::open(folder.path()).expect_err("a second writer");
    assert!(
        matches!(error, Error::Locked { holder: None, .. }),
        "{error:?}"
    );
    drop(log);
    drop(Log::open(folder.path()).expect("it is free"));
}

#[test]
fn many_make_the_same_log_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("data");
    let opened = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Log::open(&directory)))
            .collect();
        let results: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect();
        results
            .into_iter()
            .filter_map(|result| match result {
                Ok(log) => Some(log),
                Err(Error::Locked { .. }) => None,
                Err(error) => panic!("{error}"),
            })
            .count()
    });
    assert_eq!(opened, 1);
}
