//! The application, and the person before it: sends, repeats, takes back, aborts, answers, looks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recount_engine::shell::session::Session;
use recount_engine::{
    Error, ForkSession, OpenSession, PermissionAnswer, SessionManager, Status, Word,
};
use recount_projections::MessageState;
use recount_projections::turn::Asks;
use recount_store::{Prompt, Seq, SessionId, Target};
use tokio::time::{sleep, timeout};

use crate::book::{Book, Broken, Receipt};
use crate::dice::Dice;
use crate::trace::Trace;

/// How it goes about its day.
#[derive(Clone, Copy)]
pub(crate) struct Habits {
    /// How many sessions it opens.
    pub(crate) sessions_max: usize,
    /// How long it rests before it does something.
    pub(crate) pause: fn(&Dice) -> Duration,
}

impl Habits {
    /// Much at once, for a world of minutes.
    pub(crate) const HURRIED: Self = Self {
        sessions_max: 4,
        pause: |dice| match dice.below(8) {
            0..5 => dice.millis(0, 300),
            5..7 => dice.millis(300, 5000),
            _ => dice.millis(5000, 60_000),
        },
    };
}

/// What it remembers over deaths of the engine. Clones are the same application.
#[derive(Clone)]
pub(crate) struct Application {
    dice: Dice,
    trace: Trace,
    book: Book,
    targets: Vec<Target>,
    habits: Habits,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Default)]
struct Memory {
    sessions: Vec<Known>,
    /// What it wants to be queued, by key, whether or not it was told that it is.
    wanted: Vec<Wanted>,
    texts: u32,
}

/// A session that it began, or may have.
#[derive(Clone)]
struct Known {
    id: SessionId,
    target: Target,
    /// Where it goes on from, if it does.
    fork: Option<ForkSession>,
}

impl Known {
    /// Safe to repeat, and has to be where nobody knows whether it was heard.
    async fn begin(self, manager: &SessionManager) -> Result<Session, Error> {
        if let Some(spec) = self.fork {
            return manager.fork(spec).await;
        }
        let spec = OpenSession {
            id: Some(self.id),
            target: self.target,
            ..OpenSession::new("opencode", "/project")
        };
        manager.open(spec).await
    }
}

#[derive(Clone)]
struct Wanted {
    session: SessionId,
    key: String,
    text: String,
}

impl Application {
    pub(crate) fn new(
        dice: Dice,
        trace: Trace,
        book: Book,
        targets: Vec<Target>,
        habits: Habits,
    ) -> Self {
        Self {
            dice,
            trace,
            book,
            targets,
            habits,
            memory: Arc::default(),
        }
    }

    /// Uses the engine until something fails.
    pub(crate) async fn use_engine(&self, manager: &SessionManager) -> Result<(), Error> {
        loop {
            sleep((self.habits.pause)(&self.dice)).await;
            match self.act(manager).await {
                // A refusal is an answer.
                Ok(()) | Err(Error::Rejected(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn act(&self, manager: &SessionManager) -> Result<(), Error> {
        let known = self.memory.lock().unwrap().sessions.clone();
        if known.is_empty() || known.len() < self.habits.sessions_max && self.dice.percent(5) {
            return self.open(manager).await;
        }
        let chosen = known[self.dice.below(known.len())].clone();
        let session = chosen.clone().begin(manager).await?;
        match self.dice.below(100) {
            0..30 => self.send(&session).await,
            30..40 => self.send_with_key(&session).await,
            40..50 => self.repeat(manager).await,
            50..60 => {
                let open = session.with_state(|state| {
                    state
                        .queue
                        .open()
                        .map(|message| message.id)
                        .collect::<Vec<_>>()
                })?;
                match open.get(self.dice.below(open.len())) {
                    Some(message) => session.cancel(*message).await,
                    None => Ok(()),
                }
            }
            60..63 => {
                self.trace
                    .say("person", format!("aborts in {}", session.id()));
                session.abort().await
            }
            63..90 => self.answer(&session).await,
            90..94 if known.len() < 2 * self.habits.sessions_max => {
                self.fork(manager, &session, chosen.target).await
            }
            94..97 => {
                let mut subscription = session.subscribe();
                let look = async { while let Ok(Some(_)) = subscription.next().await {} };
                let _ = timeout(self.dice.millis(0, 2000), look).await;
                Ok(())
            }
            97 if self.dice.percent(20) => session.close().await,
            98 => self.queue_again(&session).await,
            _ => Ok(()),
        }
    }

    async fn open(&self, manager: &SessionManager) -> Result<(), Error> {
        let known = Known {
            id: self.new_id(),
            target: self.targets[self.dice.below(self.targets.len())].clone(),
            fork: None,
        };
        self.remember(known.clone());
        known.begin(manager).await.map(drop)
    }

    /// Tries again from some moment of a session, and says something there at once.
    async fn fork(
        &self,
        manager: &SessionManager,
        from: &Session,
        target: Target,
    ) -> Result<(), Error> {
        let last = from.with_state(|state| state.seq)?;
        let id = self.new_id();
        let known = Known {
            id,
            target,
            fork: Some(ForkSession {
                id: Some(id),
                at: self
                    .dice
                    .percent(50)
                    .then(|| Seq(self.dice.between(1, last.0))),
                ..ForkSession::new(from.id())
            }),
        };
        self.trace
            .say("person", format!("forks {}: {:?}", from.id(), known.fork));
        self.remember(known.clone());
        let session = known.begin(manager).await?;
        self.send(&session).await
    }

    fn new_id(&self) -> SessionId {
        let mut id = [0; 10];
        id[..8].copy_from_slice(&self.dice.number().to_le_bytes());
        SessionId::from_bytes(id)
    }

    fn remember(&self, known: Known) {
        self.memory.lock().unwrap().sessions.push(known);
    }

    /// A text that nobody said before.
    fn text(&self) -> String {
        let mut memory = self.memory.lock().unwrap();
        memory.texts += 1;
        format!("matter {:03}", memory.texts)
    }

    async fn send(&self, session: &Session) -> Result<(), Error> {
        let text = self.text();
        // Where the agent works, this is for now rather than for later.
        let message = if self.dice.percent(25) {
            session.steer(&text, None).await?
        } else {
            session.send(&text, None).await?
        };
        self.told(Receipt {
            session: session.id(),
            message,
            key: None,
            text,
        });
        Ok(())
    }

    async fn send_with_key(&self, session: &Session) -> Result<(), Error> {
        let wanted = {
            let text = self.text();
            let mut memory = self.memory.lock().unwrap();
            let wanted = Wanted {
                session: session.id(),
                key: format!("key of {text}"),
                text,
            };
            memory.wanted.push(wanted.clone());
            wanted
        };
        self.ask(session, wanted).await
    }

    /// Has a dead letter queued again, where it cannot double.
    async fn queue_again(&self, session: &Session) -> Result<(), Error> {
        let letters = session.dead_letters()?;
        let Some(letter) = letters.get(self.dice.below(letters.len())) else {
            return Ok(());
        };
        session.requeue(letter.message, false).await.map(drop)
    }

    /// Says again what it may have said before.
    async fn repeat(&self, manager: &SessionManager) -> Result<(), Error> {
        let wanted = {
            let memory = self.memory.lock().unwrap();
            let wanted = memory.wanted.get(self.dice.below(memory.wanted.len()));
            wanted.cloned()
        };
        let Some(wanted) = wanted else { return Ok(()) };
        match manager.find(wanted.session).await {
            Ok(session) => self.ask(&session, wanted).await,
            Err(Error::UnknownSession { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ask(&self, session: &Session, wanted: Wanted) -> Result<(), Error> {
        let Wanted { key, text, .. } = wanted;
        let message = session.send(&text, Some(&key)).await?;
        let before = self.book.with(|pages| {
            let receipts = pages.receipts.iter();
            let mut same = receipts.filter(|receipt| receipt.key.as_ref() == Some(&key));
            same.next().map(|receipt| receipt.message)
        });
        if let Some(before) = before
            && before != message
        {
            self.book.check(Err(Broken {
                promise: "promise_3_once_in_order_and_answered",
                what: format!("{key:?} named {before}, and now names {message}"),
            }));
        }
        self.told(Receipt {
            session: session.id(),
            message,
            key: Some(key),
            text,
        });
        Ok(())
    }

    fn told(&self, receipt: Receipt) {
        self.trace.say(
            "person",
            format!("is told that {:?} is {}", receipt.text, receipt.message),
        );
        self.book.with(|pages| pages.receipts.push(receipt));
    }

    /// Answers what waits for a person.
    async fn answer(&self, session: &Session) -> Result<(), Error> {
        let (waiting, question) = session.with_state(|state| {
            let head = state.queue.head().map(|message| message.state);
            let turn = state.turn.as_ref();
            let question = turn.and_then(|turn| turn.open_questions().next());
            (head == Some(MessageState::Waiting), question.cloned())
        })?;
        if waiting {
            let run = self.dice.percent(60);
            self.trace.say(
                "person",
                format!("decides in {}: run again {run}", session.id()),
            );
            return match session.rerun(run).await {
                // Then something else is asked.
                Err(Error::Rejected(_)) => {
                    let word = self.dice.pick(&[Word::Arrived, Word::Resend, Word::GiveUp]);
                    session.resolve(word).await
                }
                decided => decided,
            };
        }
        let Some(question) = question else {
            return Ok(());
        };
        let id = &question.id;
        if let Asks::Words(prompts) = &question.asks {
            let Some(answers) = self.words(prompts) else {
                self.trace.say("person", format!("refuses {id}"));
                return session.refuse_question(Some(id)).await;
            };
            self.trace
                .say("person", format!("answers {id}: {answers:?}"));
            return session.answer_question(Some(id), answers).await;
        }
        let answer = self.dice.pick(&[
            PermissionAnswer::Once,
            PermissionAnswer::Once,
            PermissionAnswer::Always,
            PermissionAnswer::Reject,
        ]);
        self.trace
            .say("person", format!("answers {id}: {answer:?}"));
        session.answer(Some(id), answer).await
    }

    /// What is said to a question in words: something that fits mostly, or nothing at all.
    fn words(&self, prompts: &[Prompt]) -> Option<Vec<Vec<String>>> {
        let answer = |prompt: &Prompt| {
            let labels = prompt.options.iter().map(|choice| choice.label.clone());
            let mut words: Vec<String> = labels.filter(|_| self.dice.percent(50)).collect();
            if self.dice.percent(20) {
                words.push("something else".to_owned());
            }
            words
        };
        let refused = self.dice.percent(20);
        (!refused).then(|| prompts.iter().map(answer).collect())
    }

    /// Answers whatever waits, until nothing is open.
    pub(crate) async fn settle(&self, manager: &SessionManager) -> Result<(), Error> {
        let known = self.memory.lock().unwrap().sessions.clone();
        for known in known {
            let session = known.begin(manager).await?;
            loop {
                let rests = timeout(self.dice.millis(100, 5000), session.at_rest()).await;
                match rests {
                    Ok(Ok(Status::Idle | Status::Closed))
                        if session.with_state(|state| state.queue.head().is_none())? =>
                    {
                        break;
                    }
                    Ok(Err(error)) => return Err(error),
                    Ok(Ok(_)) | Err(_) => {}
                }
                match self.answer(&session).await {
                    Ok(()) | Err(Error::Rejected(_)) => {}
                    Err(error) => return Err(error),
                }
                sleep(self.dice.millis(100, 2000)).await;
            }
        }
        Ok(())
    }

    /// What the agents of its sessions are called.
    pub(crate) fn hosts_of_sessions(&self) -> BTreeMap<SessionId, String> {
        let memory = self.memory.lock().unwrap();
        let host = |known: &Known| {
            let host = match &known.target {
                Target::Url(url) => url.trim_start_matches("http://"),
                Target::Managed { directory, .. } => directory.trim_start_matches('/'),
            };
            (known.id, host.to_owned())
        };
        memory.sessions.iter().map(host).collect()
    }

    /// The sessions that it opened, or may have.
    pub(crate) fn sessions(&self) -> Vec<SessionId> {
        let memory = self.memory.lock().unwrap();
        memory.sessions.iter().map(|known| known.id).collect()
    }
}
