//! What a shell completes: asked as it asks, and by a real Tab in a real bash.

use std::os::unix::fs::symlink;
use std::process::Command;

use recount_tests::command::VERB_TIMEOUT;
use recount_tests::fixture::fixture;
use recount_tests::place::Place;
use recount_tests::process::terminal::Terminal;
use recount_tests::process::{Finished, recount};

/// A fixture in whose folder `bin` has the command under its name.
fn place() -> Place {
    let place = fixture("week");
    let bin = place.path("bin");
    std::fs::create_dir(&bin).unwrap();
    symlink(recount(), bin.join("recount")).unwrap();
    place
}

/// A command that finds `recount`, and its log.
fn with_recount(place: &Place, program: &str) -> Command {
    let folder = place.folder();
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("PATH", format!("{}/bin:/usr/bin:/bin", folder.display()))
        .env("TERM", "xterm-256color")
        .env("TZ", "UTC")
        .env("RECOUNT_DATA", place.data())
        .env("NO_COLOR", "1")
        .env("RECOUNT_NOW", "2026-11-09T00:00:00Z");
    command
}

/// What is offered for the last of these words: ids and their like, without the flags that could stand there, too.
fn offered(place: &Place, words: &[&str]) -> Vec<String> {
    let mut command = with_recount(place, "recount");
    command
        .env("RECOUNT_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
        .arg("--")
        .args(words);
    let finished = Finished::of(&mut command);
    assert_eq!(finished.stderr, "");
    let text = finished.printed();
    let words = text.lines().filter(|word| !word.starts_with('-'));
    words.map(str::to_owned).collect()
}

#[test]
fn what_the_log_has_to_name_is_offered() {
    let place = place();
    let of = |words: &[&str]| offered(&place, &[&["recount"], words].concat());
    assert_eq!(of(&["sho"]), ["show"]);
    assert_eq!(of(&["show", "2"]), ["255zgdq9ezxwp000"]);
    assert_eq!(of(&["log", "l"]), ["latest"]);
    assert_eq!(of(&["diff", "latest", "77"]), ["77jekghtakx70000"]);
    assert_eq!(of(&["find", "--session", "yr"]), ["yrrtr0f1pfxs8000"]);
    assert_eq!(of(&["frames", "--connection", "v"]), ["v4edyb5nremmzcfq"]);
    assert_eq!(of(&["why", "latest", "last:TurnF"]), ["last:TurnFailed"]);
    assert_eq!(of(&["requeue", "ntd"]), ["ntd7nc8gzrjpt3dj"]);
    let all = of(&["show", ""]);
    assert_eq!(all.len(), 15, "{all:?}");
    assert_eq!(all[..2], ["latest", "94vw4pqhnvawj000"]);

    // The line says where the log is before the environment does; where there is none, there is nothing, in silence.
    let clean = fixture("clean");
    let data = clean.data().display().to_string();
    assert_eq!(of(&["--data", &data, "show", "04"]), ["040g2081040g2081"]);
    let data = format!("--data={data}");
    assert_eq!(of(&[&data, "show", "04"]), ["040g2081040g2081"]);
    assert_eq!(of(&["--data", "/nowhere", "show", ""]), [""; 0]);
    let short = fixture("newer_format").data().display().to_string();
    assert_eq!(of(&["--data", &short, "show", ""]), [""; 0]);
}

#[test]
fn each_shell_is_told_how_to_ask() {
    let place = place();
    let all = offered(&place, &["recount", ""]);
    for verb in ["demo", "show", "whatif", "man"] {
        assert!(all.iter().any(|known| known == verb), "{verb}: {all:?}");
    }
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = place.printed(&["completions", shell]);
        assert!(script.contains("RECOUNT_COMPLETE"), "{script}");
        let mut asked = with_recount(&place, "recount");
        let told = Finished::of(asked.env("RECOUNT_COMPLETE", shell)).printed();
        assert!(told.contains("RECOUNT_COMPLETE"), "{shell}: {told}");
    }
}

/// What each one is told beside its name, by the shells that show it.
#[test]
fn an_id_is_told_with_what_to_know_it_by() {
    let place = place();
    let mut asked = with_recount(&place, "recount");
    asked
        .env("RECOUNT_COMPLETE", "fish")
        .args(["--", "recount", "show", "9"]);
    let told = Finished::of(&mut asked).printed();
    assert_eq!(told, "94vw4pqhnvawj000\tidle, 3 h ago  /project\n");
}

#[test]
fn a_tab_in_bash_writes_the_id() {
    let place = place();
    let mut command = with_recount(&place, "bash");
    let mut bash = Terminal::run(command.args(["--norc", "--noprofile", "-i"]));
    bash.type_in("PS1='> '; source <(recount completions bash); echo rea''dy\n");
    assert!(bash.shows("ready", VERB_TIMEOUT), "{bash:#?}");
    bash.type_in("recount sessi\t--js\t| wc -l\n");
    assert!(bash.shows("14\r\n", VERB_TIMEOUT), "{bash:#?}");
    bash.type_in("recount show yrr\t--at 1\n");
    let shown = bash.shows(
        "session yrrtr0f1pfxs8000  idle, as of event 1",
        VERB_TIMEOUT,
    );
    assert!(shown, "{bash:#?}");
    bash.type_in("exit\n");
    let finished = bash.finish(VERB_TIMEOUT);
    assert_eq!(finished.status.code(), Some(0), "{finished:#?}");
}
