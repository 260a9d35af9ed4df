//! Keys in, screen out, on a log in memory.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use expect_test::{Expect, expect};
use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use recount_store::{Event, Expected, Log, NewEvent, Position, Recorded};

use super::{Model, Walker, Where, Wish, draw, page};
use crate::render::fixture;

/// A screen with the story of a session on it.
struct Screen {
    log: Log,
    walker: Walker,
    model: Model,
    terminal: Terminal<TestBackend>,
}

impl Screen {
    async fn of(columns: u16, rows: u16, story: &[Recorded]) -> Self {
        let log = Log::in_memory().expect("a log");
        record(&log, story).await;
        let mut model = Model::of(fixture::session(), TimeZone::UTC);
        model.page = page(columns, rows);
        let mut walker = Walker::through((*log).clone(), fixture::session()).expect("it is read");
        walker.see(Where::Last, &mut model).expect("it is read");
        let terminal = Terminal::new(TestBackend::new(columns, rows)).expect("a screen");
        Self {
            log,
            walker,
            model,
            terminal,
        }
    }

    /// Presses keys, one after the other; gives what the last one wished for beyond the screen.
    fn press(&mut self, keys: &str) -> Option<Wish> {
        let mut left = None;
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                '\u{1b}' => KeyCode::Esc,
                '\u{8}' => KeyCode::Backspace,
                '>' => KeyCode::PageDown,
                '<' => KeyCode::PageUp,
                key => KeyCode::Char(key),
            };
            left = self.model.handle(KeyEvent::new(code, KeyModifiers::NONE));
            if let Some(Wish::See(wished)) = left.clone() {
                let model = &mut self.model;
                self.walker.see(wished, model).expect("it is read");
                while self.walker.seek_on(model).expect("it is read") {}
                left = None;
            }
        }
        left
    }

    /// What is on the screen, without the spaces at the ends of lines.
    fn shown(&mut self) -> String {
        let drawn = self.terminal.draw(|frame| draw(frame, &self.model, false));
        drawn.expect("it is drawn");
        let lines = self.terminal.backend().to_string();
        let lines = lines.lines().map(|line| line.trim_matches('"').trim_end());
        lines.collect::<Vec<_>>().join("\n")
    }

    fn check(&mut self, expected: &Expect) {
        expected.assert_eq(&self.shown());
    }

    /// The position of the event that the cursor is on, which is the one that the state is of.
    fn position(&self) -> u64 {
        let here = self.model.here().expect("an event").position;
        assert_eq!(self.model.view.moment.position, here);
        here.0
    }
}

async fn record(log: &Log, story: &[Recorded]) {
    for told in story {
        let event = NewEvent::live(told.event.clone(), told.at);
        let appended = log.append(told.stream, Expected::Any, vec![event]).await;
        appended.expect("it is recorded");
    }
}

#[tokio::test]
async fn a_narrow_screen_has_the_state_below() {
    let mut screen = Screen::of(80, 24, &fixture::story()).await;
    screen.check(&expect![[r#"
         081040g2081040g2  waiting  event 12 of 12  2026-11-22 09:14:23
          09:14:13.000     6  TurnRequested          040g20
          09:14:14.000     7  TurnStarted            040g20
          09:14:15.000     8  OutputAppended         "Let me look.\nIt"
          09:14:16.000     9  ToolCallStarted        bash {"command":"make"} (call_1)
          09:14:17.000    ~5  StreamLost             the stream broke: connection reset
          09:14:18.000    ~6  ConnectionChanged      connected to disconnected
          09:14:19.000    ~7  ServerExited           signal: 9 (SIGKILL)
          09:14:20.000    ~8  ReconnectScheduled     try 1 not before 2026-11-22T09:14:…
          09:14:21.000    10  ToolCallEnded          lost (call_1) ""
          09:14:22.000    11  TurnInterrupted        040g20: its process is gone
        > 09:14:23.000    12  RerunDecided           040g20 waits for a person: a tool …
         state ─────────────────────────────────────────────────────────────────────────
        agent      opencode in /home/project with test/model
        messages   1 waiting
        connection disconnected for 5.0 s
        last error the stream broke: connection reset
        next try   not before 2026-11-22 09:14:20

        message 040g20  waiting, 1 attempt
          > Why did it fail?
          > Be brief.
          = the agent died in it, and a person has to say what comes next, after 10 s
         ? keys  / search  : go to  r e d p t jump  f follow  q leave"#]]);
    screen.press("\t");
    screen.check(&expect![[r#"
         081040g2081040g2  waiting  event 12 of 12  2026-11-22 09:14:23
          09:14:13.000     6  TurnRequested          040g20
          09:14:14.000     7  TurnStarted            040g20
          09:14:15.000     8  OutputAppended         "Let me look.\nIt"
          09:14:16.000     9  ToolCallStarted        bash {"command":"make"} (call_1)
          09:14:17.000    ~5  StreamLost             the stream broke: connection reset
          09:14:18.000    ~6  ConnectionChanged      connected to disconnected
          09:14:19.000    ~7  ServerExited           signal: 9 (SIGKILL)
          09:14:20.000    ~8  ReconnectScheduled     try 1 not before 2026-11-22T09:14:…
          09:14:21.000    10  ToolCallEnded          lost (call_1) ""
          09:14:22.000    11  TurnInterrupted        040g20: its process is gone
        > 09:14:23.000    12  RerunDecided           040g20 waits for a person: a tool …
         event ─────────────────────────────────────────────────────────────────────────
        RerunDecided
        number     12 of session/081040g2081040g2
        position   20
        known as   decided, live
        at         2026-11-22T09:14:23.000000Z
        message: 040g2081040g2081
        reason: a tool had begun: bash
        rerun: wait
        run: 1

         ? keys  / search  : go to  r e d p t jump  f follow  q leave"#]]);
}

#[tokio::test]
async fn a_wide_screen_has_it_beside() {
    let mut screen = Screen::of(120, 40, &fixture::story()).await;
    screen.press(":8\n");
    screen.check(&expect![[r#"
         081040g2081040g2  busy  event 8 of 12  2026-11-22 09:14:15
          09:14:04.000     1  SessionOpened          opencode in /home/pro…┌ state ─────────────────────────────────────────────
          09:14:05.000     2  MessageQueued          040g20 key "build-17"…│agent      opencode in /home/project with test/model
          09:14:06.000    ~1  ConnectionOpened       opencode, started in …│messages   1 running
          09:14:07.000    ~2  ServerSpawned          pid 4242              │connection connected for 6.0 s
          09:14:08.000    ~3  ServerReady            http://127.0.0.1:4101…│server     http://127.0.0.1:4101 version 1.18.3
          09:14:09.000    ~4  ConnectionChanged      connecting to connect…│
          09:14:10.000     3  AgentSessionBound      ses_1                 │message 040g20  running, 1 attempt
          09:14:11.000     4  DeliveryStarted        040g20 attempt 1 as m…│  > Why did it fail?
          09:14:12.000     5  DeliveryAccepted       040g20 at attempt 1   │  > Be brief.
          09:14:13.000     6  TurnRequested          040g20                │  = the agent works on it, after 2.0 s
          09:14:14.000     7  TurnStarted            040g20                │  Let me look.
        > 09:14:15.000     8  OutputAppended         "Let me look.\nIt"    │  It
          09:14:16.000     9  ToolCallStarted        bash {"command":"make…│
          09:14:17.000    ~5  StreamLost             the stream broke: con…│
          09:14:18.000    ~6  ConnectionChanged      connected to disconne…│
          09:14:19.000    ~7  ServerExited           signal: 9 (SIGKILL)   │
          09:14:20.000    ~8  ReconnectScheduled     try 1 not before 2026…│
          09:14:21.000    10  ToolCallEnded          lost (call_1) ""      │
          09:14:22.000    11  TurnInterrupted        040g20: its process i…│
          09:14:23.000    12  RerunDecided           040g20 waits for a pe…│
                                                                           │
                                                                           │
                                                                           │
                                                                           ┌ event ─────────────────────────────────────────────
                                                                           │OutputAppended
                                                                           │number     8 of session/081040g2081040g2
                                                                           │position   12
                                                                           │known as   observed, live
                                                                           │at         2026-11-22T09:14:15.000000Z
                                                                           │kind: text
                                                                           │message: 040g2081040g2081
                                                                           │part: prt_1
                                                                           │placement: end
                                                                           │run: 1
                                                                           │text:
                                                                           │  Let me look.
                                                                           │  It
                                                                           │
         ? keys  / search  : go to  r e d p t jump  f follow  q leave"#]]);
    screen.press("?");
    screen.check(&expect![[r#"
         081040g2081040g2  busy  event 8 of 12  2026-11-22 09:14:15
          09:14:04.000     1  SessionOpened          opencode in /home/pro…┌ state ─────────────────────────────────────────────
          09:14:05.000     2  MessageQueued          040g20 key "build-17"…│agent      opencode in /home/project with test/model
          09:14:06.000    ~1  ConnectionOpened       opencode, started in …│messages   1 running
          09:14:07.000    ~2  ServerSpawned          pid 4242              │connection connected for 6.0 s
          09:14:08.000    ~3  ServerReady            http://127.0.0.1:4101…│server     http://127.0.0.1:4101 version 1.18.3
          09:14:09.000    ~4  ConnectionChanged      connecting to connect…│
          09:14:10.000     3  AgentSessionBound      ses_1                 │message 040g20  running, 1 attempt
          09:14:11.000     4  DeliveryStarted        040g20 attempt 1 as m…│  > Why did it fail?
          09:14:12.000     5  DeliveryAccepted       040g20 at attempt 1   │  > Be brief.
          09:14:13.000     6  TurnRequested          040g20                │  = the agent works on it, after 2.0 s
          09:14:14.000     7  TurnStarted            040g20                │  Let me look.
        > 09:14:15.000     8  Outp┌ keys ────────────────────────────────────────────────────────────┐
          09:14:16.000     9  Tool│ ↓ ↑  j k  ← →  next event, the one before                        │
          09:14:17.000    ~5  Stre│ PgDn PgUp      a page on, a page back (also space, b)            │
          09:14:18.000    ~6  Conn│ Home End  g G  first event, last event                           │
          09:14:19.000    ~7  Serv│ r R            next retry, the one before                        │
          09:14:20.000    ~8  Reco│ e E            next error, the one before                        │
          09:14:21.000    10  Tool│ d D            next disconnect, the one before                   │
          09:14:22.000    11  Turn│ p P            next permission or question, the one before       │
          09:14:23.000    12  Reru│ t T            next turn, the one before                         │
                                  │ /              search in the lines; n N the next, the one before │
                                  │ :              go to a number, a time of the day, or a time      │
                                  │ f              follow what comes, or stop                        │
                                  │ Tab            state or event, on a narrow screen                │──────────────────────────
                                  │ J K            scroll the event                                  │
                                  │ Esc            stop a search, leave a prompt                     │1040g2081040g2
                                  │ q              leave (also Ctrl-C)                               │
                                  └──────────────────────────────────────────────────────────────────┘
                                                                           │at         2026-11-22T09:14:15.000000Z
                                                                           │kind: text
                                                                           │message: 040g2081040g2081
                                                                           │part: prt_1
                                                                           │placement: end
                                                                           │run: 1
                                                                           │text:
                                                                           │  Let me look.
                                                                           │  It
                                                                           │
         ? keys  / search  : go to  r e d p t jump  f follow  q leave"#]]);
}

#[tokio::test]
async fn keys_move_the_cursor() {
    let mut screen = Screen::of(80, 24, &fixture::story()).await;
    assert_eq!(screen.position(), 20);
    let mut at = |keys| {
        screen.press(keys);
        screen.position()
    };
    let moves = [
        ("j", 20),
        ("k", 19),
        ("g", 1),
        ("k", 1),
        ("jj", 3),
        (">", 14),
        ("<", 3),
        ("G", 20),
    ];
    for (keys, position) in moves {
        assert_eq!(at(keys), position, "{keys}");
    }
    // Jumps: where there is no other, the cursor stays.
    let jumps = [
        ("g", 1),
        ("t", 10),
        ("t", 10),
        ("e", 14),
        ("e", 16),
        ("e", 18),
        ("E", 16),
        ("D", 15),
        ("D", 14),
        ("d", 15),
        ("r", 17),
        ("p", 17),
        ("T", 10),
    ];
    for (keys, position) in jumps {
        assert_eq!(at(keys), position, "{keys}");
    }
    // A search goes on from where it was, and takes words of types and of what they say in any letters.
    let searches = [
        ("g/make\n", 13),
        ("/CONNECTIONCH\n", 15),
        ("N", 6),
        ("n", 15),
        ("/\n", 15),
        ("g/\u{8}j", 2),
        ("/never\u{1b}k", 1),
    ];
    for (keys, position) in searches {
        assert_eq!(at(keys), position, "{keys}");
    }
    // A number, a time, a time of the day, and what is none of these or not there.
    let moments = [
        (":5\n", 9),
        (":2026-11-22T09:14:08Z\n", 5),
        (":09:14:10.5\n", 7),
        (":1999-01-01T00:00:00Z\n", 1),
        (":23:00\n", 20),
        (":13\n", 20),
        (":soon\n", 20),
    ];
    for (keys, position) in moments {
        assert_eq!(at(keys), position, "{keys}");
    }
}

#[tokio::test]
async fn it_says_what_it_could_not_do() {
    let mut screen = Screen::of(80, 24, &fixture::story()).await;
    let mut note = |keys| {
        screen.press(keys);
        screen.model.note.clone().unwrap_or_default()
    };
    assert_eq!(note("n"), "nothing was searched for yet: / begins");
    assert_eq!(note("p"), "no permission after this event");
    assert_eq!(note("N"), "no permission before this event");
    assert_eq!(note("/nowhere\n"), "no \"nowhere\" after this event");
    assert_eq!(note(":13\n"), "there is no event 13");
    assert_eq!(
        note(":soon\n"),
        "\"soon\" is neither a number nor a time like 09:14:03 or 2026-11-22T09:14:03Z"
    );
    assert_eq!(note("k"), "");
    assert_eq!(screen.press("q"), Some(Wish::Leave));
    let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(screen.model.handle(ctrl_c), Some(Wish::Interrupt));
}

#[tokio::test]
async fn what_comes_is_followed_on_request() {
    let story = fixture::story();
    let (before, after) = story.split_at(12);
    let mut screen = Screen::of(80, 24, before).await;
    record(&screen.log, after).await;
    screen
        .walker
        .refresh(&mut screen.model)
        .expect("it is read");
    assert_eq!(screen.position(), 12);
    assert_eq!(
        screen.model.view.last.0, 12,
        "but it is seen that more has come"
    );
    screen.press("f");
    assert_eq!(screen.position(), 20);
    let closed = fixture::session_event(21, Event::SessionClosed);
    record(&screen.log, &[closed]).await;
    screen
        .walker
        .refresh(&mut screen.model)
        .expect("it is read");
    assert_eq!(screen.position(), 21);
    // Whoever goes back does not want to be taken away again.
    screen.press("k");
    assert!(!screen.model.following);
    // What comes on the connection after the end belongs to others.
    let lost = fixture::connection_event(
        22,
        Event::StreamLost {
            reason: "later".to_owned(),
        },
    );
    record(&screen.log, &[lost]).await;
    screen
        .walker
        .refresh(&mut screen.model)
        .expect("it is read");
    screen.press("G");
    assert_eq!(screen.position(), 21);
}

#[tokio::test]
async fn each_way_to_a_moment_gives_the_same_state() {
    let story = fixture::story();
    let mut on = Screen::of(80, 24, &story).await;
    on.press("g");
    let mut moments = vec![on.model.view.moment.clone()];
    for _ in 1..story.len() {
        on.press("j");
        moments.push(on.model.view.moment.clone());
    }
    let positions: Vec<_> = moments.iter().map(|moment| moment.position).collect();
    assert_eq!(positions, (1..=20).map(Position).collect::<Vec<_>>());
    let mut back = Screen::of(80, 24, &story).await;
    for moment in moments.iter().rev() {
        assert_eq!(back.model.view.moment, *moment);
        back.press("k");
    }
}
