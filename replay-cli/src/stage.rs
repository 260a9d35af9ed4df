//! A session played to a person: answers as they grow, and beside them what happens around them.

use std::io;

use recount_store::{Event, MessageId, Recorded};

use crate::output::Output;
use crate::render::answer::{Answer, Piece};
use crate::render::{scene, text};

/// Where a session is played.
pub(crate) struct Stage {
    /// Where answers go.
    front: Output,
    /// Where the rest goes; none where it goes to the front as well, prompts and ends included.
    side: Option<Output>,
    /// Whether an answer that was begun again is seen again from its beginning.
    again: bool,
    /// The answers that are not whole yet.
    answers: Vec<Answer>,
    /// Whether the front stands in the middle of a line.
    mid_line: bool,
}

impl Stage {
    /// Everything on one front; what an agent said again is seen again, if `again`.
    pub(crate) fn whole(front: Output, again: bool) -> Self {
        Self {
            front,
            side: None,
            again,
            answers: Vec::new(),
            mid_line: false,
        }
    }

    /// The answer to one message on the front and nothing else, no piece of it twice; the rest at the side.
    pub(crate) fn answer(message: MessageId, front: Output, side: Output) -> Self {
        Self {
            side: Some(side),
            answers: vec![Answer::new(message)],
            ..Self::whole(front, false)
        }
    }

    /// Gives the front back for something else.
    pub(crate) fn into_front(self) -> Output {
        self.front
    }

    /// Takes in what happened before anybody looked: of the answers, only what they read by now is played.
    pub(crate) fn catch_up(&mut self, before: &[Recorded]) -> io::Result<()> {
        let mut answers = std::mem::take(&mut self.answers);
        for answer in &mut answers {
            for recorded in before {
                let _ = answer.take(recorded);
            }
            if let Some(piece) = answer.so_far() {
                self.say(&piece)?;
            }
        }
        self.answers = answers;
        self.flush()
    }

    /// Plays an event.
    pub(crate) fn play(&mut self, recorded: &Recorded) -> io::Result<()> {
        let event = &recorded.event;
        let alone = self.side.is_none();
        if let Event::MessageQueued { message, text, .. } = event
            && alone
        {
            self.answers.push(Answer::new(*message));
            let prompt = text::indented(text, "> ");
            let prompt = self.front.look.bold(&prompt);
            self.beside(&prompt)?;
        }
        if let Event::TurnRequested { message, run } = event
            && self.again
            && *run > 1
        {
            let mut answers = self.answers.iter_mut();
            if let Some(answer) = answers.find(|answer| answer.message() == *message) {
                *answer = Answer::new(*message);
            }
        }
        if let Event::TurnRequested { message, .. } | Event::TurnStarted { message, .. } = event
            && alone
            && !self
                .answers
                .iter()
                .any(|answer| answer.message() == *message)
        {
            // Its message was cut off.
            self.answers.push(Answer::new(*message));
        }
        let piece = self
            .answers
            .iter_mut()
            .find_map(|answer| answer.take(recorded));
        if let Some(piece) = piece {
            self.say(&piece)?;
        }
        let ours = |answer: &Answer| Some(answer.message()) == event.message();
        if !alone && ends(event) && self.answers.iter().any(ours) {
            // Whoever waits for the answer is told its end in the end.
            return Ok(());
        }
        let look = self
            .side
            .as_ref()
            .map_or(&self.front.look, |side| &side.look);
        if let Some(aside) = scene::aside(recorded, look) {
            self.beside(&aside)?;
        }
        if let Event::TurnCompleted { .. } = event
            && alone
        {
            let end = self.front.look.good("= completed");
            self.beside(&end)?;
        }
        if alone && ends(event) {
            self.answers
                .retain(|answer| Some(answer.message()) != event.message());
        }
        Ok(())
    }

    /// Says something beside the answers.
    pub(crate) fn beside(&mut self, line: &str) -> io::Result<()> {
        let Some(side) = &mut self.side else {
            self.end_line()?;
            return self.front.line(line);
        };
        self.front.flush()?;
        // On one screen the line would begin where the answer stands.
        let apart = self.mid_line && side.terminal && self.front.terminal;
        if apart {
            self.mid_line = false;
        }
        let told = side
            .text(if apart { "\n" } else { "" })
            .and_then(|()| side.line(line))
            .and_then(|()| side.flush());
        // The answer is not held up by who does not listen to the rest.
        drop(told);
        Ok(())
    }

    /// Says something about the playing itself.
    pub(crate) fn notice(&mut self, text: &str) -> io::Result<()> {
        let line = self.front.look.dim(&format!("({text})"));
        self.beside(&line)
    }

    /// Ends the line that the front stands in, if it does.
    pub(crate) fn end_line(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.mid_line) {
            self.front.text("\n")?;
        }
        Ok(())
    }

    /// Hands over everything that was played.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.front.flush()
    }

    fn say(&mut self, piece: &Piece) -> io::Result<()> {
        let text = match piece {
            Piece::On(text) => text,
            Piece::Anew(text) => {
                self.end_line()?;
                self.beside("! the answer reads otherwise now; from its beginning:")?;
                text
            }
        };
        if text.is_empty() {
            return Ok(());
        }
        self.mid_line = !text.ends_with('\n');
        // Whoever reads this by program gets each byte; a person's terminal is not the agent's.
        if self.front.terminal {
            self.front.text(&text::lines(text))
        } else {
            self.front.text(text)
        }
    }
}

/// Whether nothing comes any more about the event's message.
pub(crate) fn ends(event: &Event) -> bool {
    matches!(
        event,
        Event::TurnCompleted { .. }
            | Event::TurnFailed { .. }
            | Event::TurnAborted { .. }
            | Event::MessageCancelled { .. }
            | Event::MessageDeadLettered { .. }
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use expect_test::{Expect, expect};
    use recount_store::{ConnectionState, OutputKind, Placement};

    use super::*;
    use crate::render::fixture::{connection_event, message, plain, session_event};

    /// What was written, for both sides in one.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panics").write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Paper {
        fn output(&self, terminal: bool) -> Output {
            Output::new(self.clone(), terminal, plain())
        }
        fn text(&self) -> String {
            let bytes = self.0.lock().expect("no writer panics").clone();
            String::from_utf8(bytes).expect("text was written")
        }
    }

    fn said(run: u32, text: &str) -> Event {
        Event::OutputAppended {
            message: message(),
            run,
            part: "p".to_owned(),
            kind: OutputKind::Text,
            placement: Placement::End,
            text: text.to_owned(),
        }
    }

    /// A turn whose agent dies after `first`, and then answers with `second`.
    fn broken(first: &str, second: &str) -> Vec<Recorded> {
        let lost = Event::StreamLost {
            reason: "it broke".to_owned(),
        };
        let back = Event::ConnectionChanged {
            from: ConnectionState::Connecting,
            to: ConnectionState::Connected,
        };
        let session = |n, event| session_event(n, event);
        let (message, key) = (message(), None);
        vec![
            session(
                1,
                Event::MessageQueued {
                    message,
                    key,
                    text: "Count".to_owned(),
                },
            ),
            session(2, Event::TurnRequested { message, run: 1 }),
            session(3, said(1, first)),
            connection_event(4, lost),
            connection_event(5, back),
            session(
                6,
                Event::TurnInterrupted {
                    message,
                    run: 1,
                    answers: Vec::new(),
                    evidence: "its process is gone".to_owned(),
                },
            ),
            session(7, Event::TurnRequested { message, run: 2 }),
            session(8, said(2, second)),
            session(
                9,
                Event::TurnCompleted {
                    message,
                    run: 2,
                    finish: "stop".to_owned(),
                },
            ),
        ]
    }

    fn play(mut stage: Stage, events: &[Recorded]) {
        for event in events {
            stage.play(event).expect("paper takes everything");
        }
        stage.end_line().expect("paper takes everything");
        stage.flush().expect("paper takes everything");
    }

    fn check(actual: &str, expected: &Expect) {
        expected.assert_eq(actual);
    }

    #[test]
    fn an_answer_that_was_begun_again_is_seen_once_by_who_waits_for_it() {
        let (front, side) = (Paper::default(), Paper::default());
        let stage = Stage::answer(message(), front.output(false), side.output(false));
        play(stage, &broken("one, two", "one, two, three"));
        check(
            &front.text(),
            &expect![[r#"
            one, two, three
        "#]],
        );
        check(
            &side.text(),
            &expect![[r#"
            ! connection lost: it broke
            · connected
            ! the agent died in its turn: its process is gone
        "#]],
        );
    }

    #[test]
    fn on_one_screen_both_sides_keep_to_their_lines() {
        let screen = Paper::default();
        let stage = Stage::answer(message(), screen.output(true), screen.output(true));
        play(stage, &broken("one, two", "uno, due"));
        check(
            &screen.text(),
            &expect![[r#"
            one, two
            ! connection lost: it broke
            · connected
            ! the agent died in its turn: its process is gone
            ! the answer reads otherwise now; from its beginning:
            uno, due
        "#]],
        );
    }

    #[test]
    fn played_again_it_is_seen_as_it_happened() {
        let front = Paper::default();
        play(
            Stage::whole(front.output(false), true),
            &broken("one", "one, two"),
        );
        check(
            &front.text(),
            &expect![[r#"
            > Count
            one
            ! connection lost: it broke
            · connected
            ! the agent died in its turn: its process is gone
            one, two
            = completed
        "#]],
        );
    }

    #[test]
    fn who_comes_late_sees_what_the_answer_reads() {
        let (front, side) = (Paper::default(), Paper::default());
        let events = broken("one", "uno, due");
        let mut stage = Stage::answer(message(), front.output(false), side.output(false));
        stage.catch_up(&events).expect("paper takes everything");
        check(&front.text(), &expect![["uno, due"]]);
        check(&side.text(), &expect![[""]]);
    }
}
