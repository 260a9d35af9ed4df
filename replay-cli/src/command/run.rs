//! `recount run`: one message, and its answer.

mod wish;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::Duration;

use recount_engine::{Error, Rejection, Session, SessionManager};
use recount_projections::turn::{Answered, Asks, Question};
use recount_projections::{Pending, Turn, WaitsFor};
use recount_store::{Event, MessageId, Recorded, Rerun, Seq, SessionId, Tail, Target, Verdict};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use self::wish::Wish;
use super::engine;
use super::log::Printer;
use crate::args;
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::render::text;
use crate::stage::Stage;
use crate::timeline::Timeline;

/// How long after Ctrl-C the turn may take to end.
const ABORT_PATIENCE: Duration = Duration::from_secs(5);

/// Sends a message and streams its answer.
pub(crate) fn run(data: &Path, run: &args::Run, json: bool, output: Output) -> Result<(), Failure> {
    let text = wish::message(&run.message)?;
    let wish = wish::session(data, run)?;
    wish.check_program()?;
    engine::runtime()?.block_on(async {
        let interrupted = engine::interrupts();
        let mut options = engine::options(data, &run.policy, &run.keeping)?;
        if let Some(seconds) = run.silence {
            options.policy.session.silence_max = Duration::from_secs(seconds);
        }
        let manager = engine::start(options).await?;
        let conversation = Conversation {
            manager: &manager,
            wish,
            run,
            text,
            interrupted,
        };
        let end = conversation.hold(json, output).await;
        let ended = engine::shut_down(&manager).await;
        end?;
        ended
    })
}

/// One message and its answer.
struct Conversation<'a> {
    manager: &'a SessionManager,
    wish: Wish,
    run: &'a args::Run,
    text: String,
    interrupted: watch::Receiver<bool>,
}

impl Conversation<'_> {
    async fn hold(self, json: bool, output: Output) -> Result<(), Failure> {
        let log = self.manager.log();
        // First: where that cannot be read, nothing more is written.
        let pending = self
            .manager
            .pending()
            .map_err(|error| Failure::because("nothing was sent", error))?;
        let session = self.open().await?;
        let id = session.id();
        self.settle_waiting(&session).await?;
        let message = session
            .send(&self.text, self.run.key.as_deref())
            .await
            .map_err(|error| match error {
                Error::Rejected(Rejection::KeyConflict { .. }) => {
                    Failure::because("cannot send this", error)
                        .try_next("use another --key, or the same message as before")
                }
                error => Failure::because("cannot send this", error),
            })?;
        if !json {
            note(&format!("· session {id}"));
        }
        hint_at_others(&pending, id);

        let timeline = Timeline::of(log, id)?;
        let through = log.head()?.position;
        let before: Vec<Recorded> = timeline
            .events(log, through, true)
            .collect::<Result<_, _>>()?;
        let mut view = View::new(json, message, output);
        // Who goes on in a session has seen what is before.
        let goes_on = self.run.session.is_some();
        let news = before
            .iter()
            .position(|event| goes_on && queues(event, message));
        view.catch_up(&before[news.unwrap_or(0)..])?;
        let mut following = Following {
            session: &session,
            message,
            permission: self.run.policy.permission.unwrap_or_default(),
            tail: timeline.tail(log, through.next()),
            view,
            questions: engine::look_at(&session, |state| {
                let open = state.turn.iter().flat_map(Turn::open_questions);
                open.map(|question| (question.id.clone(), state.seq))
                    .collect()
            })?,
            end: before.iter().find_map(|event| end_of(event, message)),
        };
        let end = following.follow(self.interrupted).await;
        following.view.close()?;
        let end = end?;
        if let (End::DeadLettered(_), Target::Url(url)) = (&end, &self.wish.open.target) {
            note(&format!("· is a server of the agent running at {url}?"));
        }
        end.tell(id)
    }

    async fn open(&self) -> Result<Session, Failure> {
        let opened = match self.wish.open.id {
            Some(id) if self.wish.known => self.manager.find(id).await,
            _ => self.manager.open(self.wish.open.clone()).await,
        };
        opened.map_err(|error| Failure::because("cannot open the session", error))
    }

    /// Settles, or refuses to go on behind, what waits for a person.
    async fn settle_waiting(&self, session: &Session) -> Result<(), Failure> {
        let waits_for = engine::look_at(session, |state| state.queue.head()?.waits_for)?;
        let Some(waits_for) = waits_for else {
            return Ok(());
        };
        let settled = match waits_for {
            WaitsFor::Rerun => {
                let rerun = self.run.policy.rerun.unwrap_or_default();
                engine::settle_waiting(session, rerun).await?
            }
            // Any other policy settles it without being asked.
            WaitsFor::Outcome => self.run.policy.unknown.unwrap_or_default() != args::Unknown::Ask,
        };
        if settled {
            Ok(())
        } else {
            End::Waiting(waits_for).tell(session.id())
        }
    }
}

fn hint_at_others(pending: &Pending, id: SessionId) {
    let others = pending.sessions.keys().filter(|other| **other != id);
    match others.count() {
        0 => {}
        1 => note("· another session has something open: recount recover"),
        many => note(&format!(
            "· {many} other sessions have something open: recount recover"
        )),
    }
}

/// How a message ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Completed,
    Failed(String),
    Aborted,
    Cancelled,
    DeadLettered(String),
    Waiting(WaitsFor),
    Interrupted,
}

impl End {
    /// What is to be said about it, and the exit code.
    fn tell(self, id: SessionId) -> Result<(), Failure> {
        let what = match self {
            Self::Completed => return Ok(()),
            Self::Interrupted => {
                note(&format!(
                    "recount: interrupted\n  recount log {id}    shows what was recorded"
                ));
                return Err(Failure::Interrupted);
            }
            Self::Waiting(WaitsFor::Outcome) => {
                let what = "the agent cannot say whether a message arrived, so what becomes of it is for you to say";
                return Err(Failure::new(what).try_next(
                    "recount resolve latest                   shows what is known, and takes your word\n\
                     recount recover --unknown resend         sends it again, and the agent may have it twice\n\
                     recount recover --unknown dead-letter    gives it up, and the agent may have it all the same",
                ));
            }
            Self::Waiting(WaitsFor::Rerun) => {
                let what = "the agent died after a tool had begun, so whether the turn is run again is for you to say";
                return Err(Failure::new(what).try_next(
                    "recount resolve latest           shows what is known, and takes your word\n\
                     recount recover --rerun auto     runs it again; the tool may do its work twice\n\
                     recount recover --rerun never    gives it up",
                ));
            }
            Self::Failed(reason) => format!("the turn failed: {reason}"),
            Self::Aborted => "the turn was aborted".to_owned(),
            Self::Cancelled => "the message was taken back".to_owned(),
            Self::DeadLettered(reason) => format!("the message was given up: {reason}"),
        };
        let what = text::one_line(&what);
        Err(Failure::new(what).try_next(format!("recount log {id}    shows what happened")))
    }
}

/// How the message ends with this event, if it does.
fn end_of(recorded: &Recorded, message: MessageId) -> Option<End> {
    if recorded.event.message() != Some(message) {
        return None;
    }
    match &recorded.event {
        Event::TurnCompleted { .. } => Some(End::Completed),
        Event::TurnFailed { reason, .. } => Some(End::Failed(reason.clone())),
        Event::TurnAborted { .. } => Some(End::Aborted),
        Event::MessageCancelled { .. } => Some(End::Cancelled),
        Event::MessageDeadLettered { reason, .. } => Some(End::DeadLettered(reason.clone())),
        _ => None,
    }
}

fn queues(recorded: &Recorded, message: MessageId) -> bool {
    matches!(&recorded.event, Event::MessageQueued { message: queued, .. } if *queued == message)
}

/// Follows a message to its end.
struct Following<'a> {
    session: &'a Session,
    message: MessageId,
    permission: args::Permission,
    tail: Tail,
    view: View,
    /// What the agent asks, and what nobody was asked about yet: the agent's name for it, and the event by which
    /// the session knows of it.
    questions: VecDeque<(String, Seq)>,
    end: Option<End>,
}

impl Following<'_> {
    async fn follow(&mut self, mut interrupted: watch::Receiver<bool>) -> Result<End, Failure> {
        let session = self.session;
        let stopped = async { session.wait(|_| None::<()>).await.err() };
        tokio::pin!(stopped);
        let mut patience: Option<Instant> = None;
        // At most one question is put to a person at a time.
        let mut asking = None;
        loop {
            if let Some(end) = self.end.take() {
                return Ok(match patience {
                    Some(_) => End::Interrupted,
                    None => end,
                });
            }
            if asking.is_none() {
                asking = self.questions.pop_front().map(|(id, seq)| {
                    let permission = self.permission;
                    Box::pin(async move {
                        // The log, which is followed here, is a moment ahead of what is made of it.
                        let open = session.wait(|state| {
                            (state.seq >= seq).then(|| {
                                let turn = state.turn.as_ref()?;
                                turn.open_questions().find(|q| q.id == id).cloned()
                            })
                        });
                        let question = open.await.ok().flatten()?;
                        let answer = engine::answer(permission, &question).await;
                        Some((question, answer))
                    })
                });
            }
            let answered = async {
                match &mut asking {
                    Some(asking) => asking.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                next = self.tail.next() => match next {
                    Some(recorded) => self.see(&recorded?)?,
                    None => return Err(Failure::because("cannot go on", Error::Stopped)),
                },
                answered = answered => {
                    asking = None;
                    // What is settled by now is not asked any more.
                    if let Some((question, answer)) = answered {
                        self.give(&question, answer).await?;
                    }
                }
                _ = interrupted.wait_for(|is| *is), if patience.is_none() => {
                    patience = Some(Instant::now() + ABORT_PATIENCE);
                    self.abort().await;
                }
                () = sleep_until(patience.unwrap_or_else(Instant::now)), if patience.is_some() => {
                    return Ok(End::Interrupted);
                }
                Some(error) = &mut stopped => {
                    return Err(Failure::because("cannot go on", error)
                        .try_next("recount recover    carries on once the cause is mended"));
                }
            }
        }
    }

    fn see(&mut self, recorded: &Recorded) -> Result<(), Failure> {
        self.view.play(recorded)?;
        match &recorded.event {
            Event::PermissionAsked { permission: id, .. }
            | Event::QuestionAsked { question: id, .. }
                if self.questions.iter().all(|(known, _)| known != id) =>
            {
                self.questions.push_back((id.clone(), recorded.seq));
            }
            // Whether this message's turn waits, or one before it in the queue: it goes no further.
            Event::RerunDecided {
                rerun: Rerun::Wait, ..
            } => self.end = Some(End::Waiting(WaitsFor::Rerun)),
            Event::UnknownDecided {
                verdict: Verdict::Wait,
                ..
            } => self.end = Some(End::Waiting(WaitsFor::Outcome)),
            _ => self.end = end_of(recorded, self.message),
        }
        Ok(())
    }

    async fn give(&mut self, question: &Question, answer: Option<Answered>) -> Result<(), Failure> {
        let answer = answer.unwrap_or_else(|| {
            self.view.note(match question.asks {
                Asks::Permission { .. } => {
                    "! rejected, since there is no terminal to ask on: --permission allow says yes"
                }
                Asks::Words(_) => "! refused, since there is no terminal to answer on",
            });
            Answered::Reject
        });
        engine::give(self.session, question, answer).await.map(drop)
    }

    async fn abort(&mut self) {
        self.view
            .note("! ending the turn; Ctrl-C again leaves at once");
        // One that was not sent is taken back; of one that was, the turn is ended.
        if self.session.cancel(self.message).await.is_err() {
            // Where nothing is open any more, its end is on its way here.
            let _ = self.session.abort().await;
        }
    }
}

/// Where the conversation is seen.
struct View {
    way: Way,
    /// Whether nobody reads it any more. The message is carried to its end all the same.
    left: bool,
}

enum Way {
    Lines(Printer, Output),
    Stage(Box<Stage>),
}

impl View {
    fn new(json: bool, message: MessageId, output: Output) -> Self {
        let way = if json {
            Way::Lines(Printer::new(true), output)
        } else {
            Way::Stage(Box::new(Stage::answer(message, output, Output::stderr())))
        };
        Self { way, left: false }
    }

    fn catch_up(&mut self, before: &[Recorded]) -> io::Result<()> {
        let seen = match &mut self.way {
            Way::Lines(printer, output) => before
                .iter()
                .try_for_each(|event| printer.print(event, output))
                .and_then(|()| output.flush()),
            Way::Stage(stage) => stage.catch_up(before),
        };
        self.unless_left(seen)
    }

    fn play(&mut self, recorded: &Recorded) -> io::Result<()> {
        if self.left {
            return Ok(());
        }
        let seen = match &mut self.way {
            Way::Lines(printer, output) => printer
                .print(recorded, output)
                .and_then(|()| output.flush()),
            Way::Stage(stage) => stage.play(recorded).and_then(|()| stage.flush()),
        };
        self.unless_left(seen)
    }

    fn close(&mut self) -> io::Result<()> {
        if self.left {
            return Ok(());
        }
        let seen = match &mut self.way {
            Way::Lines(_, output) => output.flush(),
            Way::Stage(stage) => stage.end_line().and_then(|()| stage.flush()),
        };
        self.unless_left(seen)
    }

    /// Says something to the person who waits.
    fn note(&mut self, text: &str) {
        match &mut self.way {
            // Where the answer cannot go on, this is said all the same, or not at all.
            Way::Stage(stage) if !self.left => drop(stage.beside(text)),
            Way::Lines(..) | Way::Stage(_) => note(text),
        }
    }

    fn unless_left(&mut self, seen: io::Result<()>) -> io::Result<()> {
        match seen {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.left = true;
                Ok(())
            }
            seen => seen,
        }
    }
}
