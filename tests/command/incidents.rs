//! `recount incidents` as its text, on the logs that are kept for that; and the guide that begins with it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, iter};

use expect_test::{expect, expect_file};
use recount_tests::fixture::fixture;
use recount_tests::place::Place;
use recount_tests::process::{Finished, recount};
use serde_json::Value;

#[test]
fn a_week_of_incidents() {
    let week = fixture("week");
    expect_file!["snapshots/incidents_week.txt"].assert_eq(&week.told(&["incidents"]));
}

#[test]
fn only_some_of_them() {
    let week = fixture("week");
    let told = week.told_each(&[
        &["incidents", "--open"],
        &["incidents", "--kind", "panic"],
        &[
            "incidents",
            "--kind",
            "dead-letter",
            "--until",
            "2026-11-03T00:00:00Z",
        ],
        &["incidents", "--since", "2026-11-08T20:00:00Z"],
        &["incidents", "--session", "yrrtr0"],
        &["incidents", "--session", "yrrtr0", "--open"],
    ]);
    expect![[r#"
        $ recount incidents --open
        NAME   BEGAN                TOOK  TOUCHED    ENDED  WHAT
        i4791  2026-11-08 23:20:00        1 message  open   connection lost, breaker opened 45 times, message given up: the server ended the stream
        --- exit 0
        $ recount incidents --kind panic
        NAME   BEGAN                 TOOK  TOUCHED    ENDED      WHAT
        i1530  2026-11-04 10:17:35  5.9 s  1 message  by itself  task panicked, outcome unknown: a transport that was never meant to panic
        --- exit 0
        $ recount incidents --kind dead-letter --until 2026-11-03T00:00:00Z
        NAME  BEGAN                TOOK  TOUCHED     ENDED     WHAT
        i618  2026-11-02 21:59:12  0 ms  2 messages  given up  message given up 2 times: the agent does not end its work on an earlier message
        --- exit 0
        $ recount incidents --since 2026-11-08T20:00:00Z
        NAME   BEGAN                  TOOK  TOUCHED    ENDED      WHAT
        i4694  2026-11-08 20:27:15   12 ms  1 message  given up   turn stalled, turn failed: cause not known
        i4697  2026-11-08 21:38:06  131 ms             by itself  connection lost: the server ended the stream
        i4703  2026-11-08 21:39:24    20 s             by itself  connection lost 2 times: the stream broke: connection reset
        i4715  2026-11-08 21:43:26  132 ms             by itself  connection lost: the server ended the stream
        i4721  2026-11-08 21:47:06  131 ms             by itself  connection lost: the server ended the stream
        i4727  2026-11-08 21:49:04  369 ms             by itself  connection lost: the stream broke: connection reset
        i4737  2026-11-08 21:54:14  156 ms             by itself  connection lost: the server ended the stream
        i4743  2026-11-08 21:56:14    60 s             by itself  connection lost 2 times: the server ended the stream
        i4765  2026-11-08 21:58:55  420 ms  1 message  by itself  outcome unknown: POST /session/ses_000000000018Scripted000000/message: HTTP 500
        i4791  2026-11-08 23:20:00          1 message  open       connection lost, breaker opened 45 times, message given up: the server ended the stream
        i4920  2026-11-08 23:38:41    12 s             by itself  connection lost, breaker opened: the server ended the stream
        --- exit 0
        $ recount incidents --session yrrtr0
        NAME  BEGAN                TOOK  TOUCHED    ENDED        WHAT
        i317  2026-11-02 13:32:49  0 ms  1 message  given up     turn failed: permission was refused: edit look at matter 018
        i378  2026-11-02 14:32:23  0 ms  1 session  with a loss  session forgotten: the agent does not know its session ses_000000000003Scripted000000 any more
        --- exit 0
        $ recount incidents --session yrrtr0 --open
        --- stderr
        recount: no such incident
        --- exit 0
    "#]].assert_eq(&told);
}

#[test]
fn what_went_wrong_lately() {
    let week = fixture("week");
    let lately = |args: &[&str]| {
        let mut command = week.command(args);
        week.text(&Finished::of(
            command.env("RECOUNT_NOW", "2026-11-09T00:00:00Z"),
        ))
    };
    assert_eq!(
        lately(&["incidents", "--since", "4h"]),
        week.told(&["incidents", "--since", "2026-11-08T20:00:00Z"])
    );
}

#[test]
fn one_is_reported() {
    let week = fixture("week");
    // An agent forgot what it was asked, and a person had to decide.
    expect![[r##"
        # Incident i318: connection lost

        ## What happened

        - **What:** connection lost, breaker opened, session forgotten, turn interrupted
        - **Began:** 2026-11-02 14:12:59 UTC
        - **Ended:** 2026-11-03 10:29:14 UTC, after 20 h
        - **Cause:** `the server ended the stream` (event 318 of the log)
        - **Connection:** `yqakrmzrfz07ze6h`

        ## Timeline

        ```text
        2026-11-02 UTC
        14:12:59.303  connection        StreamLost             the server ended the stream
        14:12:59.303  connection        ReconnectScheduled     try 1 not before 2026-11-02T14:12:59.427569Z
        14:12:59.429  connection        ConnectFailed          try 1: GET /global/health: connection refused
        14:12:59.429  connection        ReconnectScheduled     try 2 not before 2026-11-02T14:12:59.639097Z
        14:12:59.642  connection        ConnectFailed          try 2: GET /global/health: connection refused
        14:12:59.642  connection        ReconnectScheduled     try 3 not before 2026-11-02T14:13:00.102275Z
        14:13:00.105  connection        ConnectFailed          try 3: GET /global/health: connection refused
        14:13:00.105  connection        ReconnectScheduled     try 4 not before 2026-11-02T14:13:00.918724Z
        14:13:00.919  connection        ConnectFailed          try 4: GET /global/health: connection refused
        14:13:00.919  connection        ReconnectScheduled     try 5 not before 2026-11-02T14:13:02.507558Z
        14:13:02.510  connection        ConnectFailed          try 5: GET /global/health: connection refused
        14:13:02.510  connection        CircuitOpened          5 failures, until 2026-11-02T14:13:11.859569Z
        14:13:11.892  connection        ConnectionChanged      connecting to connected
        14:13:11.892  connection        CircuitClosed
        14:13:11.898  84hnh1tyh9jn8000  AgentSessionLost       ses_000000000004Scripted000000
        14:13:11.898  84hnh1tyh9jn8000  TurnInterrupted        x3wf1b: the agent lost the session
        14:13:11.898  84hnh1tyh9jn8000  ToolCallEnded          lost (call_00000500000dScripted000000) ""
        14:13:11.898  84hnh1tyh9jn8000  RerunDecided           x3wf1b waits for a person: tools had begun and may have done work: bash
        2026-11-03 UTC
        08:28:32.551  84hnh1tyh9jn8000  RerunDecided           x3wf1b runs again: a person's word
        08:28:32.551  84hnh1tyh9jn8000  RetryScheduled         x3wf1b attempt 2 not before 2026-11-03T08:28:32.551000Z
        08:28:32.551  84hnh1tyh9jn8000  DeliveryStarted        x3wf1b attempt 2 as msg_19c2c51fe0005V0SpDWLXGkQlM
        08:28:32.553  84hnh1tyh9jn8000  TurnRequested          x3wf1b run 2
        10:29:14.813  84hnh1tyh9jn8000  TurnAbortAsked         x3wf1b
        10:29:14.814  84hnh1tyh9jn8000  AgentErrorReported     MessageAbortedError: Aborted
        10:29:14.828  84hnh1tyh9jn8000  TurnAborted            x3wf1b run 2
        ```

        ## Who was touched

        - session `84hnh1tyh9jn8000`, now idle
          - message `c99e0a2jj9d4vj2j`: completed
          - message `faqjfkazkv4cd56c`: completed
          - message `x3wf1bswwgmwm5wg`: aborted

        ## How it ended

        It is over, but something is missing for good: a part of an answer, or what an agent remembered.

        ## What to do now

        ```sh
        recount why 84hnh1tyh9jn8000 60                                     # why it came to that
        recount show 84hnh1tyh9jn8000 --at 37                               # how the session stood then
        recount show 84hnh1tyh9jn8000                                       # how it stands now
        recount log 84hnh1tyh9jn8000 --since 2026-11-02T14:12:59.303000Z    # everything from then on, event by event
        ```

        ## Evidence

        Events of the log, by position: 318, 320, 322, 324, 326, 328, 330, 332, 334, 336, 338, 340, 344–349, 672, 674–675, 679, 741–742, 744.
        --- exit 0
    "##]].assert_eq(&week.told(&["incidents", "i318"]));
    // It is open, and its events are too many to be told.
    expect![[r#"
        # Incident i4791: connection lost

        ## What happened

        - **What:** connection lost, breaker opened 45 times, message given up
        - **Began:** 2026-11-08 23:20:00 UTC
        - **Ended:** not yet
        - **Cause:** `the server ended the stream` (event 4791 of the log)
        - **Connection:** `yqakrmzrfz07ze6h`

        ## Timeline

        ```text
        2026-11-08 UTC
        23:20:00.000  connection        StreamLost             the server ended the stream
        23:20:00.000  connection        ReconnectScheduled     try 1 not before 2026-11-08T23:20:00.124569Z
        23:20:00.128  connection        ConnectFailed          try 1: GET /global/health: connection refused
        23:20:00.128  connection        ReconnectScheduled     try 2 not before 2026-11-08T23:20:00.338097Z
        23:20:00.341  connection        ConnectFailed          try 2: GET /global/health: connection refused
        23:20:00.341  connection        ReconnectScheduled     try 3 not before 2026-11-08T23:20:00.801275Z
        23:20:00.803  connection        ConnectFailed          try 3: GET /global/health: connection refused
        23:20:00.803  connection        ReconnectScheduled     try 4 not before 2026-11-08T23:20:01.616724Z
        23:20:01.619  connection        ConnectFailed          try 4: GET /global/health: connection refused
        23:20:01.619  connection        ReconnectScheduled     try 5 not before 2026-11-08T23:20:03.207558Z
        23:20:03.210  connection        ConnectFailed          try 5: GET /global/health: connection refused
        23:20:03.210  connection        CircuitOpened          5 failures, until 2026-11-08T23:20:12.559569Z
        23:20:12.561  connection        ConnectFailed          try 6: GET /global/health: connection refused
        23:20:12.561  connection        CircuitOpened          6 failures, until 2026-11-08T23:20:31.521097Z
        23:20:31.525  connection        ConnectFailed          try 7: GET /global/health: connection refused
        23:20:31.525  connection        CircuitOpened          7 failures, until 2026-11-08T23:21:19.485275Z
        23:21:19.489  connection        ConnectFailed          try 8: GET /global/health: connection refused
        23:21:19.489  connection        CircuitOpened          8 failures, until 2026-11-08T23:22:19.489000Z
        23:22:19.490  connection        ConnectFailed          try 9: GET /global/health: connection refused
        23:22:19.490  connection        CircuitOpened          9 failures, until 2026-11-08T23:23:19.490000Z
        23:23:19.491  connection        ConnectFailed          try 10: GET /global/health: connection refused
        23:23:19.491  connection        CircuitOpened          10 failures, until 2026-11-08T23:24:04.990187Z
        23:24:04.992  connection        ConnectFailed          try 11: GET /global/health: connection refused
        23:24:04.992  connection        CircuitOpened          11 failures, until 2026-11-08T23:25:04.992000Z
        23:25:04.993  connection        ConnectFailed          try 12: GET /global/health: connection refused
        23:25:04.993  connection        CircuitOpened          12 failures, until 2026-11-08T23:25:52.268957Z
        23:25:52.272  connection        ConnectFailed          try 13: GET /global/health: connection refused
        23:25:52.272  connection        CircuitOpened          13 failures, until 2026-11-08T23:26:42.572682Z
        23:26:42.574  connection        ConnectFailed          try 14: GET /global/health: connection refused
        23:26:42.574  connection        CircuitOpened          14 failures, until 2026-11-08T23:27:42.574000Z
        … 61 more …
        23:55:53.554  connection        ConnectFailed          try 45: GET /global/health: connection refused
        23:55:53.554  connection        CircuitOpened          45 failures, until 2026-11-08T23:56:46.354579Z
        23:56:46.355  connection        ConnectFailed          try 46: GET /global/health: connection refused
        23:56:46.355  connection        CircuitOpened          46 failures, until 2026-11-08T23:57:46.355000Z
        23:57:46.358  connection        ConnectFailed          try 47: GET /global/health: connection refused
        23:57:46.358  connection        CircuitOpened          47 failures, until 2026-11-08T23:58:46.358000Z
        23:58:46.361  connection        ConnectFailed          try 48: GET /global/health: connection refused
        23:58:46.361  connection        CircuitOpened          48 failures, until 2026-11-08T23:59:42.679366Z
        23:59:42.681  connection        ConnectFailed          try 49: GET /global/health: connection refused
        23:59:42.681  connection        CircuitOpened          49 failures, until 2026-11-09T00:00:39.693703Z
        ```

        ## Who was touched

        - session `255zgdq9ezxwp000`, now idle
          - message `ntd7nc8gzrjpt3dj`: dead-lettered

        ## How it ended

        It goes on, as far as the log tells.

        ## What to do now

        ```sh
        recount incidents i4791                                             # again, to see how it goes on
        recount dead-letters --session 255zgdq9ezxwp000                     # what was given up, and whether the agent may have it all the same
        recount requeue ntd7nc8gzrjpt3dj                                    # queues it again
        recount recover                                                     # delivers what is queued
        recount why 255zgdq9ezxwp000 414                                    # why it came to that
        recount show 255zgdq9ezxwp000 --at 414                              # how the session stood then
        recount show 255zgdq9ezxwp000                                       # how it stands now
        recount log 255zgdq9ezxwp000 --since 2026-11-08T23:20:00.000000Z    # everything from then on, event by event
        ```

        ## Evidence

        Events of the log, by position: 4791, 4793, 4795, 4797, 4799, 4801, 4803, 4805, 4807, 4809, 4811, 4813, 4816, 4818, 4821, 4823, 4826, 4828, 4831, 4833, 4836, 4838, 4841, 4843, 4846, 4848, 4851, 4853, 4856, 4858, 4861, 4863, 4866, 4868, 4871, 4873, 4877, 4879, 4882, 4884, 4887, 4889, 4892, 4894, 4897, 4899, 4902, 4904, 4907, 4909, 4912, 4914, 4917, 4919, 4950, 4952–4953, 4956, 4958, 4961, 4963, 4966, 4968, 4971, 4973, 4976, 4978, 4981, 4983, 4986, 4988, 4991, 4993, 4996, 4998, 5001, 5003, 5006, 5008, 5011, 5013, 5016, 5018, 5021, 5023, 5026, 5028, 5031, 5033, 5036, 5038, 5041, 5043, 5046, 5048, 5051, 5053, 5056, 5058, 5061, 5063.
        --- exit 0
    "#]].assert_eq(&week.told(&["incidents", "i4791"]));
    // Nobody knows why an engine crashed.
    let crash = week.told(&["incidents", "--kind", "crash"]);
    let name = crash.lines().nth(1).unwrap().split(' ').next().unwrap();
    expect![[r#"
        # Incident i1393: engine crashed

        ## What happened

        - **What:** engine crashed
        - **Began:** 2026-11-03 18:59:46 UTC
        - **Ended:** 2026-11-04 08:00:50 UTC, after 13 h
        - **Cause:** not known: an engine that is killed, or loses its power, cannot record that. The system's own log may know
        - **Connection:** `v4edyb5nremmzcfq`
        - **Connection:** `yqakrmzrfz07ze6h`

        ## Timeline

        ```text
        2026-11-04 UTC
        08:00:00.000  engine            EngineStarted          version 0.1.0, pid 13695
        08:00:03.584  connection        StreamLost             the engine ended
        08:00:50.664  connection        StreamLost             the engine ended
        ```

        ## How it ended

        By itself: what was down came back, and what was cut off was done.

        ## What to do now

        ```sh
        recount find --error --since 2026-11-03T18:59:46.938000Z    # what went wrong from then on, in all sessions
        ```

        ## Evidence

        Events of the log, by position: 1393–1394, 1407.
        --- exit 0
    "#]].assert_eq(&week.told(&["incidents", name]));
}

#[test]
fn any_event_of_an_incident_names_it() {
    let week = fixture("week");
    let incident = week.object(&["incidents", "i318", "--json"]);
    assert_eq!(incident["incident"], "i318");
    let positions: Vec<_> = incident["evidence"].as_array().unwrap().iter().collect();
    let timeline = incident["timeline"].as_array().unwrap().iter();
    let told: Vec<_> = timeline.map(|event| &event["position"]).collect();
    assert_eq!(positions, told);
    let last = format!("i{}", told.last().unwrap());
    assert_eq!(week.object(&["incidents", &last, "--json"]), incident);
}

#[test]
fn json_has_the_same_incidents_as_the_table() {
    let week = fixture("week");
    let names = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .skip(1)
            .take_while(|line| !line.starts_with("---"));
        lines
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    };
    let json = week.json(&["incidents", "--json"]);
    let in_json: Vec<_> = json
        .iter()
        .map(|row| row["incident"].as_str().unwrap())
        .collect();
    assert_eq!(names(&week.told(&["incidents"])), in_json);
    for row in json {
        assert_eq!(row["open"], Value::from(row["end"].is_null()), "{row}");
    }
}

#[test]
fn logs_in_any_state() {
    let names = [
        "clean",
        "torn",
        "newer_event",
        "mangled",
        "short",
        "newer_format",
    ];
    let told = names.map(|name| format!("{name}: {}", fixture(name).told(&["incidents"])));
    expect![[r#"
        clean: --- stderr
        recount: nothing went wrong
        --- exit 0
        torn: --- stderr
        recount: nothing went wrong
        --- exit 0
        newer_event: --- stderr
        recount: nothing went wrong
        --- exit 0
        mangled: --- stderr
        recount: cannot go on: the log is damaged at position 52: the payload of type 2 cannot be read: a text in it is not UTF-8
          recount doctor HERE/data                             says what is wrong with it, and what to do
          recount salvage HERE/data/log.redb --into NEW-DIR    takes out what can still be proven
        --- exit 1
        short: --- stderr
        recount: cannot go on: the log is damaged at position 61: its file is cut short
          recount doctor HERE/data                             says what is wrong with it, and what to do
          recount salvage HERE/data/log.redb --into NEW-DIR    takes out what can still be proven
        --- exit 1
        newer_format: --- stderr
        recount: cannot open the log: HERE/data/log.redb has format 2, and this release reads up to 1; it was left as it is: use the release that wrote it or a newer one
        --- exit 1
    "#]].assert_eq(&told.concat());
}

#[test]
fn what_is_no_incident() {
    let clean = fixture("clean");
    let told = clean.told_each(&[
        &["incidents", "i7"],
        &["incidents", "latest"],
        &["incidents", "seven"],
        &["incidents", "i7", "--open"],
        &["incidents", "--kind", "bad-luck"],
    ]);
    expect![[r#"
        $ recount incidents i7
        --- stderr
        recount: no incident has event 7 of the log
          recount incidents    lists them
        --- exit 1
        $ recount incidents latest
        --- stderr
        recount: nothing went wrong
          recount incidents    lists them
        --- exit 1
        $ recount incidents seven
        --- stderr
        recount: no incident is called "seven": names are like i1042
          recount incidents    lists them
        --- exit 2
        $ recount incidents i7 --open
        --- stderr
        error: the argument '[NAME]' cannot be used with '--open'

        Usage: recount incidents --data <DIR> <NAME>

        For more information, try '--help'.
        --- exit 2
        $ recount incidents --kind bad-luck
        --- stderr
        error: invalid value 'bad-luck' for '--kind <KIND>'
          [possible values: crash, panic, exit, connection, breaker, amnesia, gap, stall, interruption, unknown, expiry, failure, dead-letter]

        For more information, try '--help'.
        --- exit 2
    "#]].assert_eq(&told);
}

// ---- the guide

fn guide() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("docs/incident.md")
}

/// What the commands of the guide print is what stands in it, but for names, numbers and times. `UPDATE_EXPECT=1`
/// writes it anew.
#[test]
fn the_guide_tells_what_happens() {
    let written = fs::read_to_string(guide()).unwrap();
    let lived = lived(&written);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(guide(), &lived).unwrap();
        return;
    }
    let (lived, written) = (shape(&lived), shape(&written));
    for (lived, written) in lived.iter().zip(&written) {
        assert_eq!(lived, written);
    }
    assert_eq!(lived.len(), written.len());
}

/// The guide, with what its commands print now.
fn lived(written: &str) -> String {
    let place = Place::new();
    let mut lived = String::new();
    let mut in_block = false;
    for line in written.lines() {
        match (in_block, line.strip_prefix("$ ")) {
            (false, _) => in_block = line == "````console",
            // A report has blocks of its own.
            (true, _) if line == "````" => in_block = false,
            (true, Some(command)) => {
                lived.push_str(line);
                lived.push('\n');
                lived.push_str(&shell(&place, command));
                continue;
            }
            // What it printed for whoever wrote the guide.
            (true, None) => continue,
        }
        lived.push_str(line);
        lived.push('\n');
    }
    lived
}

/// Has a shell do what a line of the guide says, and gives what it prints.
fn shell(place: &Place, line: &str) -> String {
    let bin = recount().parent().unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("exec 2>&1; {line}")])
        .current_dir(place.folder())
        .env_clear()
        .env("HOME", place.folder())
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .env("TZ", "UTC")
        .env("RECOUNT_DATA", place.path("night"));
    let printed = Finished::of(&mut command).printed();
    printed.replace(place.folder().to_str().unwrap(), "~")
}

/// The lines of a text without what is different each time: ids, numbers, times, and how wide columns are for them.
fn shape(text: &str) -> Vec<String> {
    // Ids, and hashes; short ids are the beginnings of whole ones.
    let is_id = |word: &&str| {
        let digits = word.bytes().any(|b| b.is_ascii_digit());
        let small = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase();
        word.len() >= 16 && (digits || word.bytes().all(small))
    };
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let ids: BTreeSet<&str> = words.filter(is_id).collect();
    let mut text = text.to_owned();
    for id in &ids {
        text = text.replace(id, "ID").replace(&id[..6], "ID");
    }
    let mut lines: Vec<_> = text.lines().map(line_shape).collect();
    // Which sign of a server's death is seen first is up to chance.
    let on_connection = |line: &String| line.starts_with("N:N:N connection");
    for run in lines.chunk_by_mut(|a, b| on_connection(a) && on_connection(b)) {
        run.sort();
    }
    lines
}

fn line_shape(line: &str) -> String {
    // Whether other events stood between them.
    const EVIDENCE: &str = "Events of the log, by position:";
    if line.starts_with(EVIDENCE) {
        return EVIDENCE.to_owned();
    }
    let words: Vec<_> = line.split_whitespace().map(masked).collect();
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    // `350 ms`, `4.2 s`
    for at in 1..words.len() {
        if words[at - 1].ends_with('N') && ["ms", "s", "min"].contains(&words[at]) {
            words[at] = "TIME";
        }
    }
    // How many words an agent came to say.
    words.dedup();
    let line = words.join(" ").replace("(N TIME ago)", "(just now)");
    match line.split_once(" StreamLost ") {
        // So is what a stream says of it.
        Some((before, _)) => format!("{before} StreamLost"),
        None => line,
    }
}

/// A word with N for each number in it.
fn masked(word: &str) -> String {
    let mut out = String::new();
    let mut chars = word.chars().peekable();
    while let Some(c) = chars.next() {
        if !c.is_ascii_digit() {
            out.push(c);
            continue;
        }
        out.push('N');
        let more = |c: &char| c.is_ascii_digit() || *c == '.';
        iter::from_fn(|| chars.next_if(more)).for_each(drop);
    }
    out
}
