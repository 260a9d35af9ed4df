//! `recount compact`, `rebuild` and `retain`, killed at any moment: the log is whole, and what is begun again is done.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use recount_store::{
    Event, Log, LogReader, NewEvent, Position, Recorded, Seq, SessionId, StreamId, Timestamp,
    Verified, verify,
};
use recount_tests::command::VERB_TIMEOUT;
use recount_tests::files::copy;
use recount_tests::place::Place;
use recount_tests::process::Running;
use recount_tests::story::{self, MESSAGE, opened};

/// How many sessions there are; every other one is closed.
const SESSIONS: u8 = 4;

/// How many events each of them has: enough to be worth a snapshot, and several steps of compacting together.
const EVENTS: usize = 2000;

/// At how many moments a verb is killed.
const MOMENTS: u32 = 8;

const fn session(n: u8) -> StreamId {
    StreamId::Session(SessionId::from_bytes([n; 10]))
}

/// What a session said, long enough that many of it fill the log.
fn said(n: usize) -> NewEvent {
    let event = story::said(MESSAGE, 1, &format!("{n} ").repeat(1500));
    NewEvent::live(event, Timestamp(n as u64))
}

/// A log with sessions whose events stand between each other's.
fn written() -> Place {
    let sessions = || (0..SESSIONS).map(session);
    let closed = NewEvent::live(Event::SessionClosed, Timestamp(EVENTS as u64));
    let batches = (0..EVENTS).step_by(20).flat_map(|first| {
        let batch = move || (first..first + 20).map(said).collect();
        sessions().map(move |session| (session, batch()))
    });
    Place::holding(
        sessions()
            .map(|session| (session, vec![NewEvent::live(opened(), Timestamp(1))]))
            .chain(batches)
            .chain(
                sessions()
                    .step_by(2)
                    .map(|session| (session, vec![closed.clone()])),
            ),
    )
}

/// Runs a verb to its end, on the log in this directory of a place; gives how long that took.
fn finish(place: &Place, data: &str, args: &[&str]) -> Duration {
    let began = Instant::now();
    place.printed(&[&["--data", data], args].concat());
    began.elapsed()
}

/// What a log holds, for readers.
#[derive(Debug, PartialEq)]
struct Held {
    streams: Vec<(StreamId, Seq, Seq)>,
    events: Vec<Recorded>,
}

fn held(data: &Path) -> Held {
    let reader = LogReader::open(data).unwrap();
    let streams = reader.streams().unwrap();
    let events = streams.iter().flat_map(|(stream, _)| {
        let events = reader.read(*stream, Seq::FIRST);
        events.collect::<Result<Vec<_>, _>>().unwrap()
    });
    let events = events.collect();
    let stands = streams.iter().map(|(id, head)| (*id, head.from, head.seq));
    Held {
        streams: stands.collect(),
        events,
    }
}

fn verified(data: &Path) -> Verified {
    verify(&LogReader::open(data).unwrap(), None).unwrap()
}

/// Kills a verb at moments of its life, each on a copy of the log, and looks at what it leaves. `same` says whether
/// that is as it should be; the verb is then run to its end, and the log is to hold what one does that was not killed.
fn killed(place: &Place, args: &[&str], same: impl Fn(&Held)) {
    let whole = place.path("whole");
    copy(&place.data(), &whole);
    let long = finish(place, "whole", args);
    let (done, proven) = (held(&whole), verified(&whole));
    same(&done);
    let mut cut_short = 0;
    for moment in 0..MOMENTS {
        let name = format!("copy-{moment}");
        let data = place.path(&name);
        copy(&place.data(), &data);
        let mut command = place.command(args);
        let mut running = Running::spawn(command.env("RECOUNT_DATA", &data));
        std::thread::sleep(long * moment / MOMENTS);
        running.kill_9();
        cut_short += u32::from(running.finish(VERB_TIMEOUT).status.code().is_none());
        // First as it was left, by who only reads; then by who opens it to write.
        verified(&data);
        same(&held(&data));
        drop(Log::open(&data).unwrap());
        same(&held(&data));
        finish(place, &name, args);
        let after = verified(&data);
        assert_eq!(after.streams, proven.streams, "{moment}");
        assert!(held(&data).streams == done.streams, "{moment}");
        fs::remove_dir_all(data).unwrap();
    }
    assert!(cut_short > 0, "it was always over before it was killed");
}

#[test]
fn compacting_can_be_killed_at_any_moment() {
    let place = written();
    for n in (0..SESSIONS).step_by(2) {
        let id = session(n).to_string();
        place.printed(&["cut", &id, "--all"]);
    }
    let before = held(&place.data());
    // Each that was cut is one event; the others are whole.
    let halves = usize::from(SESSIONS / 2);
    assert_eq!(before.events.len(), halves * (EVENTS + 1) + halves);
    killed(&place, &["compact"], |held| {
        assert!(*held == before, "{:?}", held.streams);
    });
    let bytes = |data: &Path| fs::metadata(data.join("log.redb")).unwrap().len();
    assert!(bytes(&place.path("whole")) < bytes(&place.data()));
}

#[test]
fn rebuilding_can_be_killed_at_any_moment() {
    let place = written();
    place.printed(&["cut", &session(0).to_string(), "--before", "500"]);
    let before = held(&place.data());
    killed(&place, &["rebuild"], |held| {
        assert!(*held == before, "{:?}", held.streams);
    });
    // Looking back is quick at once: each long session has a snapshot, as new as its last event.
    let reader = LogReader::open(place.path("whole")).unwrap();
    for n in 0..SESSIONS {
        let snapshot = reader.snapshot(session(n), "session").unwrap();
        let head = reader.stream_head(session(n)).unwrap().unwrap();
        assert_eq!(snapshot.map(|snapshot| snapshot.seq), Some(head.seq));
    }
    let pending = reader.snapshot(StreamId::Engine, "pending").unwrap();
    let Position(last) = reader.head().unwrap().position;
    assert_eq!(pending.map(|pending| pending.seq), Some(Seq(last)));
}

#[test]
fn retaining_can_be_killed_at_any_moment() {
    let place = written();
    let before = held(&place.data());
    let open = |held: &Held| -> Vec<Recorded> {
        let is_open =
            |event: &&Recorded| (0..SESSIONS).any(|n| n % 2 == 1 && event.stream == session(n));
        held.events.iter().filter(is_open).cloned().collect()
    };
    let untouched = open(&before);
    killed(
        &place,
        &["retain", "--older-than", "1d", "--compact"],
        |held| {
            assert!(open(held) == untouched);
            for n in (0..SESSIONS).step_by(2) {
                // Whole, or nothing but the event that says that it is gone.
                let mut events = held
                    .events
                    .iter()
                    .filter(|event| event.stream == session(n));
                let first = events.next().unwrap();
                let rest = events.count();
                match first.event {
                    Event::StreamCut { before, .. } => assert_eq!((before, rest), (first.seq, 0)),
                    _ => assert_eq!((first.seq, rest), (Seq::FIRST, EVENTS + 1)),
                }
            }
        },
    );
}
