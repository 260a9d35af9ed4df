//! `recount step` on a terminal: keys in, screen out.

use std::ops::RangeInclusive;

use expect_test::{Expect, expect};
use recount_store::{ConnectionState, Event, NewEvent, StreamId};
use recount_tests::command::VERB_TIMEOUT;
use recount_tests::place::Place;
use recount_tests::process::terminal::Terminal;
use recount_tests::story::{
    CONNECTION, MESSAGE, SESSION, after, linked, opened, queued, record, said,
};
use rustix::process::Signal;

const DOWN: &str = "\x1b[B";
const UP: &str = "\x1b[A";
const PAGE_UP: &str = "\x1b[5~";
const HOME: &str = "\x1b[H";
const END: &str = "\x1b[F";

/// How many pieces the agent says before its connection falls, and after it.
const PIECES: u64 = 300;

/// Steps through the session on a terminal of this size.
fn step(place: &Place, columns: u16, rows: u16, args: &[&str]) -> Terminal {
    let mut command = place.command(&["step", "latest"]);
    command.args(args).env("TERM", "xterm-256color");
    Terminal::of_size(&command, columns, rows)
}

/// Says words of these numbers, one after the other.
fn words(numbers: RangeInclusive<u64>) -> impl Iterator<Item = (StreamId, Event)> {
    let said = |n| said(MESSAGE, 1, &format!("word{n} "));
    numbers.map(move |n| (StreamId::Session(SESSION), said(n)))
}

/// A session whose connection falls in the middle of a long answer.
fn story() -> Vec<(StreamId, Event)> {
    let (session, link) = (StreamId::Session(SESSION), StreamId::Connection(CONNECTION));
    let message = MESSAGE;
    let changed = |from, to| (link, Event::ConnectionChanged { from, to });
    let mut story = vec![
        (session, opened()),
        (session, queued(message, "Count.")),
        (link, linked()),
        changed(ConnectionState::Connecting, ConnectionState::Connected),
        (
            session,
            Event::DeliveryStarted {
                message,
                attempt: 1,
                agent_message: "msg_1".to_owned(),
            },
        ),
        (
            session,
            Event::DeliveryAccepted {
                message,
                attempt: 1,
            },
        ),
        (session, Event::TurnRequested { message, run: 1 }),
        (session, Event::TurnStarted { message, run: 1 }),
    ];
    story.extend(words(1..=PIECES));
    story.extend([
        (
            link,
            Event::StreamLost {
                reason: "the stream broke: connection reset".to_owned(),
            },
        ),
        changed(ConnectionState::Connected, ConnectionState::Disconnected),
        (
            link,
            Event::ReconnectScheduled {
                attempt: 1,
                at: after(60_000),
            },
        ),
        changed(ConnectionState::Disconnected, ConnectionState::Connecting),
        changed(ConnectionState::Connecting, ConnectionState::Connected),
    ]);
    story.extend(words(PIECES + 1..=2 * PIECES));
    story.push((
        session,
        Event::TurnCompleted {
            message,
            run: 1,
            finish: "stop".to_owned(),
        },
    ));
    story
}

/// A place with that, a tenth of a second between any two events.
fn with_a_log() -> Place {
    Place::holding((0..).zip(story()).map(|(n, (stream, event))| {
        let event = NewEvent::live(event, after(n * 100));
        (stream, vec![event])
    }))
}

/// What is on the screen once these words are.
fn check(terminal: &Terminal, words: &str, expected: &Expect) {
    expected.assert_eq(&terminal.text_with(words, VERB_TIMEOUT));
}

/// Types keys, and waits for these words.
fn typed(terminal: &mut Terminal, keys: &str, words: &str) {
    terminal.type_in(keys);
    let text = terminal.text_with(words, VERB_TIMEOUT);
    assert!(
        text.contains(words),
        "after {keys:?}, not {words:?}:\n{text}"
    );
}

/// Waits for the end, after which the terminal is as it was.
fn left(terminal: Terminal, code: i32) {
    terminal.wait_for_end(VERB_TIMEOUT);
    assert!(terminal.is_tame());
    let screen = terminal.screen();
    assert!(!screen.alternate_screen() && !screen.hide_cursor());
    assert_eq!(screen.contents().trim(), "");
    let finished = terminal.finish(VERB_TIMEOUT);
    assert_eq!(finished.status.code(), Some(code), "{finished:#?}");
}

#[test]
fn a_small_terminal() {
    let place = with_a_log();
    let mut terminal = step(&place, 80, 24, &[]);
    check(
        &terminal,
        "TurnCompleted",
        &expect![[r#"
             081040g2081040g2  idle  event 607 of 607  2026-11-22 09:15:04
              09:15:03.300   597  OutputAppended         "word591 "
              09:15:03.400   598  OutputAppended         "word592 "
              09:15:03.500   599  OutputAppended         "word593 "
              09:15:03.600   600  OutputAppended         "word594 "
              09:15:03.700   601  OutputAppended         "word595 "
              09:15:03.800   602  OutputAppended         "word596 "
              09:15:03.900   603  OutputAppended         "word597 "
              09:15:04.000   604  OutputAppended         "word598 "
              09:15:04.100   605  OutputAppended         "word599 "
              09:15:04.200   606  OutputAppended         "word600 "
            > 09:15:04.300   607  TurnCompleted          040g20: stop
             state ─────────────────────────────────────────────────────────────────────────
            agent      opencode in /work
            messages   1 completed
            connection connected for 30 s

            message 040g20  completed, 1 attempt
              = completed
              word569 word570 word571 word572 word573 word574 word575 word576 word577
              word578 word579 word580 word581 word582 word583 word584 word585 word586
              word587 word588 word589 word590 word591 word592 word593 word594 word595
              word596 word597 word598 word599 word600
             ? keys  / search  : go to  r e d p t jump  f follow  q leave"#]],
    );
    assert!(terminal.screen().alternate_screen() && !terminal.is_tame());
    typed(&mut terminal, UP, "event 606 of 607");
    typed(&mut terminal, PAGE_UP, "event 595 of 607");
    typed(&mut terminal, DOWN, "event 596 of 607");
    typed(&mut terminal, HOME, "event 1 of 607");
    typed(&mut terminal, "d", "connection connected for 30 s");
    check(
        &terminal,
        "> 09:14:33.800",
        &expect![[r#"
         081040g2081040g2  busy  event 306 of 607  2026-11-22 09:14:33
          09:14:33.300   302  OutputAppended         "word296 "
          09:14:33.400   303  OutputAppended         "word297 "
          09:14:33.500   304  OutputAppended         "word298 "
          09:14:33.600   305  OutputAppended         "word299 "
          09:14:33.700   306  OutputAppended         "word300 "
        > 09:14:33.800    ~3  StreamLost             the stream broke: connection reset
          09:14:33.900    ~4  ConnectionChanged      connected to disconnected
          09:14:34.000    ~5  ReconnectScheduled     try 1 not before 2026-11-22T09:15:…
          09:14:34.100    ~6  ConnectionChanged      disconnected to connecting
          09:14:34.200    ~7  ConnectionChanged      connecting to connected
          09:14:34.300   307  OutputAppended         "word301 "
         state ─────────────────────────────────────────────────────────────────────────
        agent      opencode in /work
        messages   1 running
        connection connected for 30 s

        message 040g20  running, 1 attempt
          > Count.
          = the agent works on it, after 30 s
          word281 word282 word283 word284 word285 word286 word287 word288 word289
          word290 word291 word292 word293 word294 word295 word296 word297 word298
          word299 word300
         ? keys  / search  : go to  r e d p t jump  f follow  q leave"#]],
    );
    typed(&mut terminal, "r\t", "ReconnectScheduled\n");
    typed(&mut terminal, "/word450\r", "event 456 of 607");
    typed(&mut terminal, ":09:14:10\r", "event 69 of 607");
    typed(&mut terminal, "ee", "no error after this event");
    typed(&mut terminal, "?", "next disconnect, the one before");
    typed(&mut terminal, "q", "event 306 of 607");
    typed(&mut terminal, END, "event 607 of 607");
    terminal.type_in("q");
    left(terminal, 0);
}

#[test]
fn a_large_terminal() {
    let place = with_a_log();
    let mut terminal = step(&place, 120, 40, &["--at", "306"]);
    typed(&mut terminal, "", "event 306 of 607");
    terminal.type_in(DOWN);
    check(
        &terminal,
        "position   309",
        &expect![[r#"
         081040g2081040g2  busy  event 306 of 607  2026-11-22 09:14:33
          09:14:31.900   288  OutputAppended         "word282 "            ┌ state ─────────────────────────────────────────────
          09:14:32.000   289  OutputAppended         "word283 "            │agent      opencode in /work
          09:14:32.100   290  OutputAppended         "word284 "            │messages   1 running
          09:14:32.200   291  OutputAppended         "word285 "            │connection connected for 30 s
          09:14:32.300   292  OutputAppended         "word286 "            │
          09:14:32.400   293  OutputAppended         "word287 "            │message 040g20  running, 1 attempt
          09:14:32.500   294  OutputAppended         "word288 "            │  > Count.
          09:14:32.600   295  OutputAppended         "word289 "            │  = the agent works on it, after 30 s
          09:14:32.700   296  OutputAppended         "word290 "            │  word214 word215 word216 word217 word218 word219
          09:14:32.800   297  OutputAppended         "word291 "            │  word220 word221 word222 word223 word224 word225
          09:14:32.900   298  OutputAppended         "word292 "            │  word226 word227 word228 word229 word230 word231
          09:14:33.000   299  OutputAppended         "word293 "            │  word232 word233 word234 word235 word236 word237
          09:14:33.100   300  OutputAppended         "word294 "            │  word238 word239 word240 word241 word242 word243
          09:14:33.200   301  OutputAppended         "word295 "            │  word244 word245 word246 word247 word248 word249
          09:14:33.300   302  OutputAppended         "word296 "            │  word250 word251 word252 word253 word254 word255
          09:14:33.400   303  OutputAppended         "word297 "            │  word256 word257 word258 word259 word260 word261
          09:14:33.500   304  OutputAppended         "word298 "            │  word262 word263 word264 word265 word266 word267
          09:14:33.600   305  OutputAppended         "word299 "            │  word268 word269 word270 word271 word272 word273
          09:14:33.700   306  OutputAppended         "word300 "            │  word274 word275 word276 word277 word278 word279
        > 09:14:33.800    ~3  StreamLost             the stream broke: con…│  word280 word281 word282 word283 word284 word285
          09:14:33.900    ~4  ConnectionChanged      connected to disconne…│  word286 word287 word288 word289 word290 word291
          09:14:34.000    ~5  ReconnectScheduled     try 1 not before 2026…│  word292 word293 word294 word295 word296 word297
          09:14:34.100    ~6  ConnectionChanged      disconnected to conne…│  word298 word299 word300
          09:14:34.200    ~7  ConnectionChanged      connecting to connect…┌ event ─────────────────────────────────────────────
          09:14:34.300   307  OutputAppended         "word301 "            │StreamLost
          09:14:34.400   308  OutputAppended         "word302 "            │number     3 of connection/0g2081040g208104
          09:14:34.500   309  OutputAppended         "word303 "            │position   309
          09:14:34.600   310  OutputAppended         "word304 "            │known as   observed, live
          09:14:34.700   311  OutputAppended         "word305 "            │at         2026-11-22T09:14:33.800000Z
          09:14:34.800   312  OutputAppended         "word306 "            │reason: the stream broke: connection reset
          09:14:34.900   313  OutputAppended         "word307 "            │
          09:14:35.000   314  OutputAppended         "word308 "            │
          09:14:35.100   315  OutputAppended         "word309 "            │
          09:14:35.200   316  OutputAppended         "word310 "            │
          09:14:35.300   317  OutputAppended         "word311 "            │
          09:14:35.400   318  OutputAppended         "word312 "            │
          09:14:35.500   319  OutputAppended         "word313 "            │
          09:14:35.600   320  OutputAppended         "word314 "            │
         ? keys  / search  : go to  r e d p t jump  f follow  q leave"#]],
    );
    terminal.type_in("\x03");
    left(terminal, 130);
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let place = with_a_log();
    let signals = [
        (Signal::HUP, 129),
        (Signal::INT, 130),
        (Signal::QUIT, 131),
        (Signal::TERM, 143),
    ];
    for (signal, code) in signals {
        let mut terminal = step(&place, 80, 24, &[]);
        typed(&mut terminal, "", "event 607 of 607");
        assert!(!terminal.is_tame());
        terminal.signal(signal);
        left(terminal, code);
    }
}

/// Only a build to test with fails when it is asked to.
#[cfg(debug_assertions)]
#[test]
fn a_panic_gives_the_terminal_back() {
    let place = with_a_log();
    let mut command = place.command(&["step", "latest"]);
    command
        .env("TERM", "xterm-256color")
        .env("RECOUNT_FAIL_DRAWN", "1");
    let terminal = Terminal::of_size(&command, 80, 24);
    terminal.wait_for_end(VERB_TIMEOUT);
    assert!(terminal.is_tame());
    let screen = terminal.screen();
    assert!(!screen.alternate_screen() && !screen.hide_cursor());
    let shown = screen.contents();
    assert!(shown.contains("as a test asked for"), "{shown}");
    let finished = terminal.finish(VERB_TIMEOUT);
    assert_eq!(finished.status.code(), Some(101), "{finished:#?}");
}

#[test]
fn what_another_process_writes_is_followed() {
    let place = with_a_log();
    let mut terminal = step(&place, 80, 24, &[]);
    typed(&mut terminal, "", "event 607 of 607");
    typed(&mut terminal, "f", "following");
    let closed = NewEvent::live(Event::SessionClosed, after(61_300));
    record(&place.data(), [(StreamId::Session(SESSION), vec![closed])]);
    typed(&mut terminal, "", "closed  event 608 of 608");
    terminal.type_in("q");
    left(terminal, 0);
}

#[test]
fn without_a_terminal_it_refuses() {
    let place = with_a_log();
    place.check(
        &["step", "latest"],
        &expect![[r#"
        --- stderr
        recount: `recount step` needs a terminal to draw on and to read keys from
          recount log ID           prints the events
          recount show ID --at N   prints how it stood
        --- exit 2
    "#]],
    );
    place.check(
        &["step", "latest", "--json"],
        &expect![[r#"
        --- stderr
        recount: `recount step` is a screen for a person, and prints no JSON
          recount log ID           prints the events
          recount show ID --at N   prints how it stood
        --- exit 2
    "#]],
    );
}
