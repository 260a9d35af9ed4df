//! How the command behaves whatever the verb: on terminals and pipes, in empty directories, and that its JSON keeps
//! its word.
//!
//! The schemas in `docs/schema` say what each verb prints for machines; `docs/json.md` is made from them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use expect_test::expect_file;
use recount_tests::command::{VERB_TIMEOUT, objects, verbs};
use recount_tests::files::copy;
use recount_tests::fixture::{FIXTURES, fixture};
use recount_tests::place::command;
use recount_tests::process::Finished;
use recount_tests::process::terminal::Terminal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Runs a verb on a terminal of its own.
fn on_terminal(data: &Path, set: &[(&str, &str)], args: &[&str]) -> Finished {
    let mut command = command(data, args);
    command.env("TERM", "xterm").envs(set.iter().copied());
    Terminal::run(&command).finish(VERB_TIMEOUT)
}

fn run(data: &Path, args: &[&str]) -> Finished {
    Finished::of(&mut command(data, args))
}

/// Runs a verb that is to succeed.
fn done(data: &Path, args: &[&str]) -> String {
    run(data, args).printed()
}

/// A folder with a log in `data`: a message that was given up, a session whose agent died once, one with a tool, a closed
/// one. Made once; it is looked at and not written.
fn place() -> &'static Path {
    static PLACE: OnceLock<TempDir> = OnceLock::new();
    let made = PLACE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let dir = folder.path().to_str().unwrap();
        let run = [
            "run",
            "--agent",
            "scripted",
            "--permission",
            "allow",
            "--dir",
            dir,
        ];
        let nobody = ["--url", "http://127.0.0.1:9", "hello"];
        let mut given_up = command(&data, &[&run[..], &nobody].concat());
        given_up.env("RECOUNT_POLICY_SESSION_UNREACHABLE_PATIENCE", "100ms");
        assert_eq!(Finished::of(&mut given_up).status.code(), Some(1));
        let say = |script: &str| done(&data, &[&run[..], &[script]].concat());
        say("script: words=3 delay=1ms");
        done(&data, &["close", "latest"]);
        say("script: words=20 delay=5ms reasoning die-once");
        say("script: permission retry words=3 delay=1ms");
        done(&data, &["key", "new", &format!("{dir}/key.pem")]);
        folder
    });
    made.path()
}

/// The same log, to change it.
fn own_place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    copy(&place().join("data"), &data);
    fs::copy(place().join("key.pem"), folder.path().join("key.pem")).unwrap();
    (folder, data)
}

// ---- JSON

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("docs")
}

/// The schemas, by their names.
fn schemas() -> BTreeMap<String, Value> {
    let files = fs::read_dir(docs().join("schema")).unwrap();
    let schema = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        (name, serde_json::from_str(&text).unwrap())
    };
    files.map(|file| schema(file.unwrap().path())).collect()
}

/// Makes a schema refuse every field that it does not name. What is published refuses none: a reader of today has to
/// read what a later release prints, too.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") {
                let closed = fields.insert("additionalProperties".to_owned(), json!(false));
                assert_eq!(closed, None, "what is added later is refused");
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// Holds everything that a verb prints against a schema, and gives it.
fn holds(name: &str, data: &Path, args: &[&str]) -> Vec<Value> {
    let args: Vec<_> = args.iter().copied().chain(["--json"]).collect();
    let finished = run(data, &args);
    let objects = objects(finished.stdout.lines());
    assert!(
        !objects.is_empty(),
        "{args:?} prints nothing: {finished:#?}"
    );
    let mut schema = schemas()
        .remove(name)
        .unwrap_or_else(|| panic!("there is a schema {name}"));
    close(&mut schema);
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap();
    for object in &objects {
        let errors: Vec<_> = validator
            .iter_errors(object)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{args:?}: {errors:#?}\n{object:#}");
    }
    objects
}

#[test]
fn the_json_of_verbs_that_look_back_is_what_the_schemas_say() {
    let data = &place().join("data");
    let policy = place().join("policy.toml");
    fs::write(&policy, "session.rerun = 'never'").unwrap();
    let policy = policy.to_str().unwrap();
    assert_eq!(holds("sessions", data, &["sessions"]).len(), 4);
    for session in holds("sessions", data, &["sessions"]) {
        let id = session["session"].as_str().unwrap();
        holds("event", data, &["log", id, "--frames"]);
        holds("event", data, &["replay", id, "--instant"]);
        holds("show", data, &["show", id]);
        holds("show", data, &["show", id, "--at", "3"]);
        holds("replay-wire", data, &["replay", id, "--wire"]);
        holds("whatif", data, &["whatif", id, "--policy", policy]);
        holds("verify", data, &["verify", id, "--decisions"]);
        holds("find", data, &["find", "--session", id]);
        holds("bisect", data, &["bisect", id, "queue.open > 0", "--all"]);
        holds("why", data, &["why", id, "last:MessageQueued", "--effects"]);
        holds("diff", data, &["diff", id, "1", "3"]);
        holds("diff", data, &["diff", id, "latest"]);
    }
    holds("find", data, &["find", "--longer-than", "0s"]);
    holds("why", data, &["why", "latest", "last:TurnCompleted"]);
    holds("show", data, &["show", "latest", "--at", "9"]);
    holds("diff", data, &["diff", "latest", "2", "9"]);
    holds("dead-letters", data, &["dead-letters"]);
    holds("incidents", data, &["incidents"]);
    holds("incidents", data, &["incidents", "latest"]);
    holds("frames", data, &["frames"]);
    holds("verify", data, &["verify"]);
    holds("verify", data, &["verify", "--decisions"]);
    holds("policy", data, &["policy"]);
    holds("policy", data, &["policy", "check", policy]);
    let key = place().join("key.pem");
    let head = place().join("head.json");
    let signed = holds("sign", data, &["sign", "--key", key.to_str().unwrap()]);
    fs::write(&head, signed[0].to_string()).unwrap();
    holds(
        "verify",
        data,
        &["verify", "--signed", head.to_str().unwrap()],
    );
    let file = |name: &str| place().join(name).to_str().unwrap().to_owned();
    let exported = file("session.jsonl");
    holds("export", data, &["export", "latest", "--out", &exported]);
    holds(
        "import",
        data,
        &["import", &exported, "--into", &file("imported")],
    );
    let (signed, bundled) = (file("head.json"), file("session.bundle"));
    let bundle = ["bundle", "latest", "--signed", &signed, "--out", &bundled];
    holds("bundle", data, &bundle);
    holds("bundle-check", data, &["bundle", "--check", &bundled]);
    let pages = place().join("man");
    holds("man", data, &["man", "--out", pages.to_str().unwrap()]);
}

#[test]
fn the_json_of_verbs_that_change_something_is_what_the_schemas_say() {
    let (folder, data) = own_place();
    let key = folder.path().join("another.pem");
    holds("key-new", &data, &["key", "new", key.to_str().unwrap()]);
    holds(
        "event",
        &data,
        &["run", "--agent", "scripted", "script: words=1"],
    );
    holds("fork", &data, &["fork", "latest", "--at", "3"]);
    holds("fork", &data, &["fork", "latest"]);
    holds("show", &data, &["show", "latest"]);
    holds("close", &data, &["close", "latest"]);
    holds("cut", &data, &["cut", "latest", "--all", "--dry-run"]);
    holds("cut", &data, &["cut", "latest", "--before", "3"]);
    holds("sessions", &data, &["sessions"]);
    holds("show", &data, &["show", "latest"]);
    let old = ["retain", "--older-than", "0s", "--frames-older-than", "0s"];
    holds("retain", &data, &[&old[..], &["--dry-run"]].concat());
    holds("retain", &data, &[&old[..], &["--compact"]].concat());
    holds("compact", &data, &["compact"]);
    holds("rebuild", &data, &["rebuild"]);
    let (file, new) = (folder.path().join("all.jsonl"), folder.path().join("new"));
    let (file, new) = (file.to_str().unwrap(), new.to_str().unwrap());
    holds("export", &data, &["export", "--all", "--out", file]);
    holds("import", &data, &["import", file, "--into", new]);
    holds("recover", &data, &["recover"]);
    holds("event", &folder.path().join("demo"), &["demo"]);
}

#[test]
fn the_json_of_recovery_by_hand_is_what_the_schemas_say() {
    // Much: a week in which everything went wrong. Little: a day on which nothing did.
    let (much, little) = (fixture("week"), fixture("clean"));
    let letters = holds("dead-letters", &much.data(), &["dead-letters"]);
    assert!(letters.len() > 1, "{letters:#?}");
    for letter in &letters {
        let session = letter["session"].as_str().unwrap();
        let message = letter["message"].as_str().unwrap();
        let of_it = ["dead-letters", "--session", session];
        assert!(holds("dead-letters", &much.data(), &of_it).contains(letter));
        if !letter["requeue_with"].is_null() {
            let again = ["requeue", message, "--even-if-it-may-double"];
            let now = holds("requeue", &much.data(), &again);
            let repeated = holds("requeue", &much.data(), &again);
            assert_eq!(
                (&now[0]["new"], &repeated[0]["new"]),
                (&json!(true), &json!(false))
            );
            assert_eq!(now[0]["again"], repeated[0]["again"]);
        }
    }
    let none = run(&little.data(), &["dead-letters", "--json"]);
    assert_eq!((none.stdout.as_str(), none.status.code()), ("", Some(0)));

    let old = &letters[0]["session"];
    for at in ["1", "9", "40"] {
        let forked = holds(
            "fork",
            &much.data(),
            &["fork", old.as_str().unwrap(), "--at", at],
        );
        let new = forked[0]["session"].as_str().unwrap();
        assert_eq!(
            holds("show", &much.data(), &["show", new])[0]["fork"]["from"],
            *old
        );
    }
    for name in FIXTURES {
        let log = fixture(name);
        let data = log.data();
        holds("doctor", &data, &["doctor"]);
        holds("doctor", &data, &["doctor", "--quick"]);
        // Of a log in a newer format nothing is taken.
        if name != "newer_format" {
            let (file, new) = (data.to_str().unwrap(), data.with_file_name("new"));
            let taken = ["salvage", file, "--into", new.to_str().unwrap()];
            holds("salvage", &data, &taken);
            holds("doctor", &data, &["doctor", new.to_str().unwrap()]);
        }
    }
    let nowhere = tempfile::tempdir().unwrap();
    holds("doctor", &nowhere.path().join("data"), &["doctor"]);
}

#[test]
fn the_json_of_what_waits_for_a_person_is_what_the_schema_says() {
    let (_folder, data) = own_place();
    let run_tool = ["run", "--agent", "scripted", "--permission", "allow"];
    let script = "script: words=3 delay=1ms tool die-once";
    let waits = run(&data, &[&run_tool[..], &[script]].concat());
    assert_eq!(waits.status.code(), Some(1), "{waits:#?}");
    holds("doctor", &data, &["doctor"]);
    let shown = holds("resolve", &data, &["resolve", "latest"]);
    let because = ["resolve", "latest", "give-up", "--because", "it is done"];
    let recorded = holds("resolve", &data, &because);
    assert_eq!(shown[0]["waits"], recorded[0]["waits"]);
    assert_eq!(
        (&recorded[0]["word"], &recorded[0]["because"]),
        (&json!("give-up"), &json!("it is done"))
    );
}

/// The fields of an object in a schema as rows of a table, those of the objects in it behind them.
fn rows(schema: &Value, before: &str, out: &mut String) {
    let none = serde_json::Map::new();
    for (name, field) in schema["properties"].as_object().unwrap_or(&none) {
        let required = schema["required"].as_array();
        let optional = !required.is_some_and(|required| required.contains(&json!(name)));
        let types = types(field, optional);
        let about = field["description"]
            .as_str()
            .unwrap_or_else(|| panic!("{before}{name} is explained"));
        writeln!(out, "| `{before}{name}` | {types} | {about} |").unwrap();
        rows(field, &format!("{before}{name}."), out);
        if let Some(items) = field.get("items") {
            rows(items, &format!("{before}{name}[]."), out);
        }
    }
}

/// What a field may be, in words.
fn types(field: &Value, optional: bool) -> String {
    let mut types: Vec<String> = match (&field["type"], &field["enum"], &field["const"]) {
        (Value::String(one), ..) => vec![one.clone()],
        (Value::Array(many), ..) => many
            .iter()
            .map(|one| one.as_str().unwrap().to_owned())
            .collect(),
        (_, Value::Array(values), _) => values.iter().map(|value| format!("`{value}`")).collect(),
        (_, _, Value::Null) => vec!["any JSON".to_owned()],
        (_, _, value) => vec![format!("`{value}`")],
    };
    if field["format"] == "date-time" {
        types[0] = String::from("time");
    }
    if optional {
        types.push("or left out".to_owned());
    }
    types.join(", ")
}

#[test]
fn whatever_prints_json_has_a_schema_that_is_held() {
    let schemas = schemas();
    let told: Vec<&str> = schemas
        .values()
        .flat_map(|schema| schema["title"].as_str().unwrap().split(", "))
        .collect();
    for verb in verbs() {
        // One draws on a terminal, the other prints a script.
        if ["step", "completions"].contains(&verb.as_str()) {
            continue;
        }
        let title = format!("recount {verb}");
        let has = |told: &&str| *told == title || told.starts_with(&format!("{title} "));
        assert!(told.iter().any(has), "no schema is called {title:?}");
    }
    let here: String = include_str!("manners.rs").split_whitespace().collect();
    for name in schemas.keys() {
        let held = format!("holds(\"{name}\",");
        assert!(here.contains(&held), "nothing is held against {name}");
    }
}

#[test]
fn the_page_about_json_is_what_the_schemas_say() {
    let mut page = String::from(
        "# The JSON of each verb\n\n\
         Every verb that prints has `--json`: one object, or one object a line. This page is made from the schemas in \
         [`schema/`](schema) (JSON Schema 2020-12), and a test holds what the verbs print against them. Within a \
         release of the same first number, fields are added and none is taken away, renamed or given another meaning; a \
         field that is new may appear in any object, and no schema refuses it.\n\n\
         A *time* is RFC 3339 in UTC with microseconds, `2026-11-22T09:14:03.120456Z`, whatever `--utc` says. Ids are \
         16 letters and digits. Durations and sizes name their unit.\n",
    );
    for schema in schemas().values() {
        let of = |member: &str| schema[member].as_str().unwrap();
        write!(page, "\n## {}\n\n{}\n", of("title"), of("description")).unwrap();
        let alternatives = schema["oneOf"].as_array();
        for object in alternatives.map_or(std::slice::from_ref(schema), Vec::as_slice) {
            if object["properties"].is_null() {
                continue;
            }
            if alternatives.is_some() {
                write!(page, "\n{}\n", object["description"].as_str().unwrap()).unwrap();
            }
            page.push_str("\n| field | type | what |\n| --- | --- | --- |\n");
            rows(object, "", &mut page);
        }
    }
    expect_file![docs().join("json.md")].assert_eq(&page);
}

// ---- terminals and pipes

/// The verbs that look back, each as it is given on a log that has sessions.
const LOOKING_BACK: [&[&str]; 22] = [
    &["sessions"],
    &["dead-letters"],
    &["incidents"],
    &["incidents", "latest"],
    &["doctor"],
    &["show", "latest"],
    &["log", "latest"],
    &["log", "latest", "--reverse", "--frames"],
    &["frames"],
    &["replay", "latest", "--instant"],
    &["replay", "latest", "--wire"],
    &["verify", "--decisions"],
    &["whatif", "latest", "--policy", "/dev/null"],
    &["policy"],
    &["find"],
    &["bisect", "latest", "queue.open > 0", "--all"],
    &["why", "latest", "last:TurnCompleted", "--effects"],
    &["diff", "latest", "2", "9"],
    &["export", "--all"],
    &["export", "latest", "--format", "markdown"],
    &["export", "latest", "--format", "trace"],
    &["export", "latest", "--format", "otlp"],
];

#[test]
fn who_reads_only_the_beginning_ends_every_verb_normally() {
    let data = place().join("data");
    for more in [&[][..], &["--json"]] {
        for args in LOOKING_BACK {
            let args = [args, more].concat();
            let ended = Finished::unread(&mut command(&data, &args));
            assert_eq!(ended.text(), "--- exit 0\n", "{args:?}");
        }
    }
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let data = &place().join("data");
    let plain = [("RECOUNT_PAGER", "cat")];
    let without = [("RECOUNT_PAGER", "cat"), ("NO_COLOR", "1")];
    for args in LOOKING_BACK {
        let piped = run(data, args).stdout;
        assert!(!piped.contains('\u{1b}'), "{args:?}: {piped}");
        let refused = on_terminal(data, &without, args).stdout;
        assert!(!refused.contains('\u{1b}'), "{args:?}: {refused}");
    }
    let seen = on_terminal(data, &plain, &["log", "latest"]).stdout;
    assert!(seen.contains('\u{1b}'), "{seen}");
}

#[test]
fn a_long_answer_goes_through_the_pager_of_the_person() {
    let data = &place().join("data");
    let pager = ("RECOUNT_PAGER", "sed 's/^/paged: /'");
    let goes_through = |set: &[(&str, &str)], args: &[&str]| {
        let finished = on_terminal(data, set, args);
        assert!(finished.status.success(), "{finished:#?}");
        finished.stdout.contains("paged: ")
    };
    assert!(goes_through(&[pager], &["log", "latest"]));
    assert!(goes_through(&[("PAGER", pager.1)], &["sessions"]));
    assert!(!goes_through(&[pager], &["--no-pager", "log", "latest"]));
    assert!(!goes_through(
        &[pager, ("TERM", "dumb")],
        &["log", "latest"]
    ));
    assert!(!goes_through(
        &[("RECOUNT_PAGER", ""), ("PAGER", pager.1)],
        &["log", "latest"]
    ));
    // Nothing is paged where nobody sees it, nor what goes on by itself.
    assert!(!run(data, &["log", "latest"]).stdout.contains("paged: "));
    assert!(!goes_through(&[pager], &["replay", "latest", "--instant"]));
    // Who has read enough ends it normally.
    assert!(!goes_through(&[("RECOUNT_PAGER", "true")], &["frames"]));
}

#[test]
fn times_are_told_in_the_zone_that_is_wanted() {
    let data = &place().join("data");
    let told = |zone: &str, args: &[&str]| {
        let mut command = command(data, args);
        let finished = Finished::of(command.env("TZ", zone));
        finished.stdout
    };
    let (here, utc) = (["log", "latest"], ["log", "latest", "--utc"]);
    let far = "Pacific/Kiritimati";
    assert_ne!(told(far, &here), told("UTC", &here));
    assert_eq!(told(far, &utc), told("UTC", &here));
    assert!(told(far, &utc).lines().next().unwrap().ends_with(" UTC"));
    // What machines read is in UTC anyway.
    let json = ["log", "latest", "--json"];
    assert_eq!(told(far, &json), told("UTC", &json));
}

// ---- beginnings, and what is looked up

#[test]
fn every_verb_explains_an_empty_directory() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let key = place().join("key.pem");
    let key = key.to_str().unwrap();
    let failing: [&[&str]; 27] = [
        &["requeue", "latest"],
        &["fork", "latest"],
        &["resolve", "latest"],
        &["incidents"],
        &["show", "latest"],
        &["log", "latest"],
        &["frames"],
        &["replay", "latest"],
        &["replay", "latest", "--wire"],
        &["verify"],
        &["verify", "--decisions"],
        &["whatif", "latest", "--policy", "/dev/null"],
        &["export", "latest"],
        &["export", "--all"],
        &["bundle", "latest", "--signed", key],
        &["sign", "--key", key],
        &["close", "latest"],
        &["cut", "latest", "--all"],
        &["retain", "--older-than", "1d"],
        &["retain", "--older-than", "1d", "--dry-run"],
        &["compact"],
        &["rebuild"],
        &["cut", "latest", "--all", "--dry-run"],
        &["find", "--error"],
        &["bisect", "latest", "queue.open > 0"],
        &["why", "latest", "last"],
        &["diff", "latest", "1", "2"],
    ];
    for args in failing {
        let finished = run(&data, args);
        assert_eq!(finished.status.code(), Some(1), "{args:?}: {finished:#?}");
        assert_eq!(finished.stdout, "", "{args:?}");
        assert!(
            finished.stderr.contains("nothing was recorded there yet"),
            "{finished:#?}"
        );
        assert!(
            finished
                .stderr
                .contains("recount run MESSAGE    begins a session"),
            "{finished:#?}"
        );
    }
    // These have nothing to do there, which is no failure.
    let nothing_to_do: [&[&str]; 5] = [
        &["sessions"],
        &["dead-letters"],
        &["recover"],
        &["policy"],
        &["doctor"],
    ];
    for args in nothing_to_do {
        let finished = run(&data, args);
        assert_eq!(finished.status.code(), Some(0), "{args:?}: {finished:#?}");
    }
    assert!(!data.exists(), "nothing is made by looking");
}

#[test]
fn each_verb_has_a_page_and_every_shell_knows_it() {
    let data = place().join("data");
    let verbs = verbs();
    let pages = tempfile::tempdir().unwrap();
    let written = done(&data, &["man", "--out", pages.path().to_str().unwrap()]);
    for verb in &verbs {
        let page = pages.path().join(format!("recount-{verb}.1"));
        assert!(
            written.contains(page.to_str().unwrap()),
            "{verb}: {written}"
        );
        let text = fs::read_to_string(&page).unwrap();
        let title = format!(".TH RECOUNT-{}", verb.to_uppercase());
        assert!(text.contains(&title), "{verb}: {text:.200}");
    }
    let main = fs::read_to_string(pages.path().join("recount.1")).unwrap();
    assert_eq!(main, done(&data, &["man"]));
}
