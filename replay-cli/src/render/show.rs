//! One session as it stood at a moment.

use std::fmt::Write as _;

use recount_projections::breaker;
use recount_projections::queue::MessageState;
use recount_projections::turn::{
    Answered, Asks, CallOutcome, Item, Question, Run, Turn, TurnState,
};
use recount_projections::{
    Breaker, Connection, Message, Projection as _, Queue, Session, Status, Transcript, WaitsFor,
};
use recount_store::{
    ConnectionId, ConnectionState, MessageId, Recorded, SessionId, StreamId, Target, Timestamp,
};
use serde::{Serialize, Serializer};

use super::time::Said;
use super::{Look, dead_letter, event, scene, text, time};
use crate::front::Cut;

/// What is known of a session up to a moment.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// What the engine decides by.
    pub(crate) session: Session,
    /// What was said and done, but for the earlier messages.
    pub(crate) transcript: Transcript,
    /// How many messages are left out with their turns, from the first one on.
    pub(crate) earlier: usize,
    /// Its connection.
    pub(crate) connection: Connection,
    /// The breaker of its connection.
    pub(crate) breaker: Breaker,
    /// What it was cut of by now.
    pub(crate) cut: Option<Cut>,
}

/// Up to where a standing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Through {
    /// How many events the session has by now.
    pub(crate) events: u64,
    /// The moment that was asked for, if one was.
    pub(crate) moment: Option<Timestamp>,
}

/// A standing as JSON.
///
/// What takes time is made as it is written: a [condition](crate::query) asks for one member of it after each event.
#[derive(Debug, Serialize)]
pub(crate) struct View<'a> {
    session: SessionId,
    agent: Option<&'a str>,
    status: Status,
    directory: Option<&'a str>,
    model: Option<&'a str>,
    title: Option<&'a str>,
    agent_session: Option<&'a str>,
    fork: Option<ForkView<'a>>,
    opened_at: Option<Said>,
    at: Said,
    events: u64,
    cut: Option<Cut>,
    earlier: usize,
    #[serde(serialize_with = "queue")]
    queue: &'a Queue,
    #[serde(serialize_with = "messages")]
    messages: &'a Standing,
    #[serde(serialize_with = "turns")]
    turns: &'a [Turn],
    connection: ConnectionView<'a>,
    breaker: &'static str,
}

#[derive(Debug, Serialize)]
struct ForkView<'a> {
    from: SessionId,
    at: u64,
    by: Option<&'static str>,
    refused: Option<&'a str>,
    added_to: Option<MessageId>,
}

impl<'a> ForkView<'a> {
    fn of(session: &'a Session) -> Option<Self> {
        let fork = session.fork.as_ref()?;
        let by = match (&fork.origin, fork.added_to) {
            (Some(_), _) => session.agent_session.is_some().then_some("copy"),
            (None, Some(_)) => Some("text"),
            (None, None) => None,
        };
        Some(Self {
            from: fork.from,
            at: fork.at.0,
            by,
            refused: fork.refused.as_deref(),
            added_to: fork.added_to,
        })
    }

    /// In words for a person.
    fn told(&self) -> String {
        let how = match self.by {
            Some("copy") => ", by a copy that its agent made",
            Some(_) => ", by text that went along with a message",
            None => "",
        };
        format!("session {} as of event {}{how}", self.from, self.at)
    }
}

#[derive(Debug, Serialize)]
struct QueueView {
    open: usize,
    bytes: usize,
    dead_letters: usize,
}

#[derive(Debug, Serialize)]
struct MessageView<'a> {
    id: MessageId,
    key: Option<&'a str>,
    state: MessageState,
    attempts: u32,
    text: &'a str,
    agent_message: Option<&'a str>,
    reason: Option<&'a str>,
    retry_at: Option<Said>,
    waits_for: Option<WaitsFor>,
    may_have_arrived: bool,
    queued_again_as: Option<MessageId>,
    abort_asked: bool,
}

#[derive(Debug, Serialize)]
struct TurnView<'a> {
    message: MessageId,
    state: TurnState,
    #[serde(serialize_with = "turn_said")]
    text: &'a Turn,
    ending: Option<&'a str>,
    stalled: Option<&'a str>,
    agent_error: Option<&'a str>,
    begun_at: Said,
    #[serde(serialize_with = "runs")]
    runs: &'a [Run],
    #[serde(serialize_with = "questions")]
    questions: &'a [Question],
}

#[derive(Debug, Serialize)]
struct RunView<'a> {
    run: u32,
    started: bool,
    #[serde(serialize_with = "run_said")]
    text: &'a Run,
    #[serde(serialize_with = "parts")]
    parts: &'a Run,
    #[serde(serialize_with = "tools")]
    tools: &'a Run,
}

#[derive(Debug, Serialize)]
struct PartView<'a> {
    id: &'a str,
    kind: &'static str,
    text: &'a str,
    after_hole: &'a str,
    withdrawn: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct ToolView<'a> {
    id: &'a str,
    tool: &'a str,
    #[serde(serialize_with = "input")]
    input: &'a str,
    outcome: Option<CallOutcome>,
    output: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct QuestionView<'a> {
    id: &'a str,
    asks: &'a Asks,
    asked_at: Said,
    answer: Option<&'a Answered>,
    expired: Option<&'a str>,
    settled: bool,
}

#[derive(Debug, Serialize)]
struct ConnectionView<'a> {
    id: Option<ConnectionId>,
    state: ConnectionState,
    attempt: u32,
    target: Option<&'a Target>,
    since: Option<Said>,
    next_try: Option<Said>,
    last_error: Option<&'a str>,
    url: Option<&'a str>,
    version: Option<&'a str>,
    pid: Option<u32>,
    gaps: Vec<&'a str>,
}

impl Standing {
    /// Takes an event of the session or of its connection in.
    pub(crate) fn apply(&mut self, recorded: &Recorded) {
        if let StreamId::Connection(_) = recorded.stream {
            self.connection.apply(recorded);
            self.breaker.apply(recorded);
        } else {
            self.session.apply(recorded);
            self.transcript.apply(recorded);
        }
    }

    /// As JSON.
    pub(crate) fn view(&self, id: SessionId) -> View<'_> {
        let opening = self.session.opening.as_ref();
        let connection = &self.connection;
        View {
            session: id,
            agent: opening.map(|opening| opening.agent.as_str()),
            status: self.session.status(),
            directory: opening.map(|opening| opening.directory.as_str()),
            model: opening.and_then(|opening| opening.model.as_deref()),
            title: opening.and_then(|opening| opening.title.as_deref()),
            agent_session: self.session.agent_session.as_deref(),
            fork: ForkView::of(&self.session),
            opened_at: opening.map(|opening| Said(opening.at)),
            at: Said(self.session.last_at),
            events: self.session.seq.0,
            cut: self.cut,
            earlier: self.earlier,
            queue: &self.session.queue,
            messages: self,
            turns: &self.transcript.turns,
            connection: ConnectionView {
                id: opening.map(|opening| opening.connection),
                state: connection.state,
                attempt: connection.attempt(),
                target: connection.target.as_ref(),
                since: (connection.since != Timestamp::default()).then_some(Said(connection.since)),
                next_try: connection.next_try.map(Said),
                last_error: connection.last_error.as_deref(),
                url: connection.ready.as_ref().map(|ready| ready.url.as_str()),
                version: connection
                    .ready
                    .as_ref()
                    .map(|ready| ready.version.as_str()),
                pid: self.pid(),
                gaps: connection.gaps.keys().map(String::as_str).collect(),
            },
            breaker: breaker_name(self.breaker.state),
        }
    }

    fn messages(&self) -> impl Iterator<Item = MessageView<'_>> {
        self.session
            .queue
            .messages()
            .iter()
            .skip(self.earlier)
            .map(|message| MessageView {
                id: message.id,
                key: message.key.as_deref(),
                state: message.state,
                attempts: message.attempts,
                // The queue forgets texts that need not be sent any more.
                text: self.said(message.id),
                agent_message: message.agent_message.as_deref(),
                reason: message.reason.as_deref(),
                retry_at: message.retry_at.map(Said),
                waits_for: message.waits_for,
                may_have_arrived: message.unproved
                    || message.given_up.is_some_and(|given_up| given_up.unknown),
                queued_again_as: message.given_up.and_then(|given_up| given_up.again),
                abort_asked: message.abort_asked,
            })
    }

    fn said(&self, message: MessageId) -> &str {
        let mut messages = self.transcript.messages.iter();
        messages
            .find(|(id, _)| *id == message)
            .map_or("", |(_, text)| text)
    }

    fn pid(&self) -> Option<u32> {
        let server = self.connection.server.as_ref()?;
        server.process.as_ref().map(|process| process.pid)
    }

    /// As text, without a line end at the end.
    pub(crate) fn text(
        &self,
        id: SessionId,
        through: Through,
        now: Timestamp,
        look: &Look,
    ) -> String {
        let mut out = String::new();
        self.head(&mut out, id, through, now, look);
        if self.session.opening.is_some() {
            self.link(&mut out, look);
        }
        self.headless(&mut out, look);
        if self.earlier > 0 {
            let earlier = text::count(self.earlier as u64, "earlier message");
            let says = format!("{earlier}, with all that was done about them: --all shows them");
            let _ = writeln!(out, "\n{}", look.dim(&says));
        }
        for (n, message) in (self.earlier + 1..).zip(self.messages()) {
            let standing = state(message.state, look);
            let attempts = text::count(u64::from(message.attempts), "attempt");
            let key = message.key.map(|key| format!(", key {key:?}"));
            let _ = writeln!(
                out,
                "\n{} {}  {standing}, {attempts}{}",
                look.bold(&format!("message {n}")),
                message.id,
                text::one_line(&key.unwrap_or_default())
            );
            out.push_str(&text::indented(message.text, "  > "));
            out.push('\n');
            if let Some(Said(at)) = message.retry_at {
                let _ = writeln!(out, "  next attempt not before {}", time::rfc3339(at));
            }
            let turn = self.transcript.turn_of(message.id);
            let settled = message.state.is_settled() && message.state != MessageState::Completed;
            if let Some(reason) = message.reason
                && (turn.is_none() || settled)
            {
                let _ = writeln!(out, "  {}", look.bad(&text::one_line(reason)));
            }
            if let Some(turn) = turn {
                turn_text(&mut out, turn, look);
            }
            if let Some(known) = self.session.queue.get(message.id) {
                given_up_text(&mut out, known, self.session.closed, look);
                for (command, what) in scene::settled_by(known, turn) {
                    let _ = writeln!(out, "    {command:<46}{what}");
                }
            }
        }
        out.truncate(out.trim_end().len());
        out
    }

    fn head(&self, out: &mut String, id: SessionId, through: Through, now: Timestamp, look: &Look) {
        let seq = self.session.seq.0;
        let events = match through.events {
            all if all == seq => text::count(all, "event"),
            all => format!("as of event {seq} of {all}"),
        };
        let status = self.session.status().name();
        let _ = writeln!(out, "{} {id}  {status}, {events}", look.bold("session"));
        if let Some(opening) = &self.session.opening {
            let mut field = |name: &str, value: &str| {
                let _ = writeln!(out, "  {name:<11}{}", text::one_line(value));
            };
            field("agent", &opening.agent);
            field("directory", &opening.directory);
            if let Some(model) = &opening.model {
                field("model", model);
            }
            if let Some(title) = &opening.title {
                field("title", title);
            }
            field("opened", &time::full(opening.at, &look.zone));
            if let Some(fork) = ForkView::of(&self.session) {
                field("goes on", &format!("from {}", fork.told()));
            }
        }
        let last = time::full(self.session.last_at, &look.zone);
        let age = time::age(self.session.last_at, now);
        let _ = writeln!(out, "  last event {last} ({age})");
        if let Some(cut) = self.cut {
            let _ = writeln!(out, "  cut        {}", look.warn(&cut.told(look)));
        }
        if let Some(moment) = through.moment {
            let _ = writeln!(out, "  as of      {}", time::full(moment, &look.zone));
        }
    }

    /// The turns whose message was cut off.
    fn headless(&self, out: &mut String, look: &Look) {
        let mut turns = self.transcript.turns.iter();
        let queue = &self.session.queue;
        for turn in turns
            .by_ref()
            .filter(|turn| queue.get(turn.message).is_none())
        {
            let _ = writeln!(
                out,
                "\n{} {}  whose beginning was cut",
                look.bold("message"),
                turn.message
            );
            turn_text(out, turn, look);
        }
    }

    fn link(&self, out: &mut String, look: &Look) {
        let connection = &self.connection;
        let mut says = event::connection_state(connection.state).to_owned();
        if connection.failures > 0 {
            let _ = write!(says, ", try {}", connection.attempt());
        }
        if let Some(ready) = &connection.ready {
            let _ = write!(says, ", {} version {}", ready.url, ready.version);
        }
        if let Some(pid) = self.pid() {
            let _ = write!(says, ", pid {pid}");
        }
        let breaker = match self.breaker.state {
            breaker::State::Open { until } => {
                look.bad(&format!("open until {}", time::full(until, &look.zone)))
            }
            breaker::State::HalfOpen => look.warn("half open"),
            breaker::State::Closed => "closed".to_owned(),
        };
        let _ = writeln!(out, "  connection {}", text::one_line(&says));
        let _ = writeln!(out, "  breaker    {breaker}");
        if let Some(error) = &connection.last_error {
            let _ = writeln!(out, "  last error {}", look.warn(&text::one_line(error)));
        }
        if let Some(next) = connection.next_try {
            let next = time::full(next, &look.zone);
            let _ = writeln!(out, "  next try   not before {next}");
        }
        if !connection.gaps.is_empty() {
            let gaps = text::count(connection.gaps.len() as u64, "session");
            let _ = writeln!(
                out,
                "  missing    something of {gaps} of the agent, not read in yet"
            );
        }
    }
}

/// The word for a breaker's state.
pub(crate) const fn breaker_name(state: breaker::State) -> &'static str {
    match state {
        breaker::State::Closed => "closed",
        breaker::State::Open { .. } => "open",
        breaker::State::HalfOpen => "half_open",
    }
}

/// The word for a message's state, as it is to look.
pub(crate) fn state(state: MessageState, look: &Look) -> String {
    let name = match state {
        MessageState::DeadLettered => "dead-lettered",
        state => state.name(),
    };
    match state {
        MessageState::Completed => look.good(name),
        MessageState::Failed | MessageState::DeadLettered => look.bad(name),
        MessageState::Aborted
        | MessageState::Cancelled
        | MessageState::Waiting
        | MessageState::Interrupted
        | MessageState::Unknown
        | MessageState::Refused => look.warn(name),
        MessageState::Queued
        | MessageState::Sending
        | MessageState::Accepted
        | MessageState::Requested
        | MessageState::Running => name.to_owned(),
    }
}

fn turn_view(turn: &Turn) -> TurnView<'_> {
    TurnView {
        message: turn.message,
        state: turn.state,
        text: turn,
        ending: turn.ending.as_deref(),
        stalled: turn.stalled.as_deref(),
        agent_error: turn.agent_error.as_deref(),
        begun_at: Said(turn.begun_at),
        runs: &turn.runs,
        questions: &turn.questions,
    }
}

fn run_view(run: &Run) -> RunView<'_> {
    RunView {
        run: run.number,
        started: run.started,
        text: run,
        parts: run,
        tools: run,
    }
}

fn question_view(question: &Question) -> QuestionView<'_> {
    QuestionView {
        id: &question.id,
        asks: &question.asks,
        asked_at: Said(question.asked_at),
        answer: question.answer.as_ref(),
        expired: question.expired.as_deref(),
        settled: question.settled,
    }
}

fn queue<S: Serializer>(queue: &Queue, serializer: S) -> Result<S::Ok, S::Error> {
    let view = QueueView {
        open: queue.open().count(),
        bytes: queue.bytes(),
        dead_letters: queue.dead_letters().count(),
    };
    view.serialize(serializer)
}

fn messages<S: Serializer>(standing: &Standing, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(standing.messages())
}

fn turns<S: Serializer>(turns: &[Turn], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(turns.iter().map(turn_view))
}

fn turn_said<S: Serializer>(turn: &Turn, serializer: S) -> Result<S::Ok, S::Error> {
    turn.text().serialize(serializer)
}

fn runs<S: Serializer>(runs: &[Run], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(runs.iter().map(run_view))
}

fn questions<S: Serializer>(questions: &[Question], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(questions.iter().map(question_view))
}

fn run_said<S: Serializer>(run: &Run, serializer: S) -> Result<S::Ok, S::Error> {
    run.text().serialize(serializer)
}

fn parts<S: Serializer>(run: &Run, serializer: S) -> Result<S::Ok, S::Error> {
    let parts = run.items.iter().filter_map(|item| match item {
        Item::Part(part) => Some(PartView {
            id: &part.id,
            kind: if part.reasoning { "reasoning" } else { "text" },
            text: &part.text,
            after_hole: &part.after_hole,
            withdrawn: part.withdrawn.as_deref(),
        }),
        Item::Call(_) => None,
    });
    parts.collect::<Vec<_>>().serialize(serializer)
}

fn tools<S: Serializer>(run: &Run, serializer: S) -> Result<S::Ok, S::Error> {
    let tools = run.calls().map(|call| ToolView {
        id: &call.id,
        tool: &call.tool,
        input: &call.input,
        outcome: call.outcome.as_ref().map(|(outcome, _)| *outcome),
        output: call.outcome.as_ref().map(|(_, output)| output.as_str()),
    });
    tools.collect::<Vec<_>>().serialize(serializer)
}

/// As the JSON that it is; as text where it is none, being cut off.
fn input<S: Serializer>(input: &str, serializer: S) -> Result<S::Ok, S::Error> {
    match serde_json::from_str::<serde_json::Value>(input) {
        Ok(value) => value.serialize(serializer),
        Err(_) => input.serialize(serializer),
    }
}

/// What a message waits for though no turn says so, and what is to be known of one that was given up.
fn given_up_text(out: &mut String, message: &Message, closed: bool, look: &Look) {
    let mut say = |what: &str| {
        let _ = writeln!(out, "  {}", look.warn(what));
    };
    if message.waits_for == Some(WaitsFor::Outcome) {
        say("= nobody knows whether it arrived, and a person has to say what comes next");
    }
    let Some(given_up) = message.given_up else {
        return;
    };
    if given_up.unknown {
        say("the agent may have it all the same");
    }
    if let Some(again) = given_up.again {
        say(&format!("queued again as {again}"));
    } else if !closed {
        let command = dead_letter::requeue_with(message.id, given_up.unknown);
        let _ = writeln!(out, "    {command}");
    }
}

/// What became of a question.
fn fate(question: &Question) -> String {
    match (&question.answer, &question.expired, question.settled) {
        (_, Some(bound), _) => format!("no, since {bound}"),
        (Some(Answered::Once), ..) => "yes, once".to_owned(),
        (Some(Answered::Always), ..) => "yes, always".to_owned(),
        (Some(Answered::Reject), ..) => "no".to_owned(),
        (Some(Answered::Words(answers)), ..) => event::answers(answers),
        (None, _, true) => "gone without an answer".to_owned(),
        (None, _, false) => "not answered".to_owned(),
    }
}

fn turn_text(out: &mut String, turn: &Turn, look: &Look) {
    for (n, run) in turn.runs.iter().enumerate() {
        let last = n + 1 == turn.runs.len();
        if turn.runs.len() > 1 {
            let fate = if last { "" } else { ": the agent died in it" };
            let _ = writeln!(out, "  {}", look.dim(&format!("run {}{fate}", run.number)));
        }
        for item in &run.items {
            item_text(out, item, look);
        }
    }
    for question in &turn.questions {
        let asked = match &question.asks {
            Asks::Permission { action, detail } => format!("permission: {action}: {detail}"),
            Asks::Words(_) => format!("question: {}", question.asks),
        };
        let _ = writeln!(
            out,
            "  {} {}",
            look.warn(&format!("{}:", text::one_line(&asked))),
            text::one_line(&fate(question))
        );
    }
    let state = match turn.state {
        TurnState::Requested => "the agent is asked to begin".to_owned(),
        TurnState::Running => "the agent works on it".to_owned(),
        TurnState::Interrupted => look.warn("the agent died in it"),
        TurnState::Waiting => {
            look.warn("the agent died in it, and a person has to say what comes next")
        }
        TurnState::Completed => look.good("completed"),
        TurnState::Failed => look.bad("failed"),
        TurnState::Aborted => look.warn("aborted"),
    };
    let ending = match &turn.ending {
        Some(ending) if turn.state == TurnState::Completed => {
            format!(" ({})", text::one_line(ending))
        }
        _ => String::new(),
    };
    let _ = writeln!(out, "  = {state}{ending}");
    if let Some(stalled) = &turn.stalled {
        let _ = writeln!(out, "    stalled: {}", text::one_line(stalled));
    }
}

fn item_text(out: &mut String, item: &Item, look: &Look) {
    match item {
        Item::Part(part) if part.reasoning => {
            let thought = text::indented(&part.text, "  ~ ");
            if !thought.is_empty() {
                let _ = writeln!(out, "{}", look.dim(&thought));
            }
        }
        Item::Part(part) => {
            let said = text::indented(&part.text, "  ");
            if !said.is_empty() {
                let _ = writeln!(out, "{said}");
            }
            if !part.after_hole.is_empty() {
                let _ = writeln!(out, "  {}", look.warn("[something is missing here]"));
                let _ = writeln!(out, "{}", text::indented(&part.after_hole, "  "));
            }
        }
        Item::Call(call) => {
            let outcome = match call.outcome {
                Some((CallOutcome::Completed, _)) => look.good("completed"),
                Some((CallOutcome::Failed, _)) => look.bad("failed"),
                Some((CallOutcome::Lost, _)) => look.warn("lost"),
                None => "running".to_owned(),
            };
            let called = format!("{} {}", call.tool, call.input);
            let _ = writeln!(out, "  [{}] {outcome}", text::one_line(&called));
            if let Some((_, output)) = &call.outcome
                && !output.is_empty()
            {
                let _ = writeln!(out, "{}", look.dim(&text::indented(output, "    ")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use recount_store::{Event, StreamId, Verdict};

    use super::*;
    use crate::render::fixture;

    fn standing(events: usize) -> Standing {
        let mut standing = Standing::default();
        for recorded in fixture::story().iter().take(events) {
            match recorded.stream {
                StreamId::Session(_) => {
                    standing.session.apply(recorded);
                    standing.transcript.apply(recorded);
                }
                StreamId::Connection(_) | StreamId::Engine => {
                    standing.connection.apply(recorded);
                    standing.breaker.apply(recorded);
                }
            }
        }
        standing
    }

    fn check(standing: &Standing, moment: Option<Timestamp>, expected: &Expect) {
        let through = Through { events: 12, moment };
        let now = fixture::at(80);
        let text = standing.text(fixture::session(), through, now, &fixture::plain());
        expected.assert_eq(&text);
    }

    #[test]
    fn what_waits_is_shown_with_the_commands_that_settle_it() {
        check(
            &standing(usize::MAX),
            None,
            &expect![[r#"
                session 081040g2081040g2  waiting, 12 events
                  agent      opencode
                  directory  /home/project
                  model      test/model
                  opened     2026-11-22 09:14:04
                  last event 2026-11-22 09:14:23 (60 s ago)
                  connection disconnected
                  breaker    closed
                  last error the stream broke: connection reset
                  next try   not before 2026-11-22 09:14:20

                message 1 040g2081040g2081  waiting, 1 attempt, key "build-17"
                  > Why did it fail?
                  > Be brief.
                  Let me look.
                  It
                  [bash {"command":"make"}] lost
                  = the agent died in it, and a person has to say what comes next
                    recount resolve 040g2081040g2081 rerun        says: run it again
                    recount resolve 040g2081040g2081 give-up      says: give it up
                    recount recover --rerun auto                  runs again all that wait
                    recount recover --rerun never                 gives up all that wait"#]],
        );
    }

    #[test]
    fn a_moment_before_shows_what_was_believed_then() {
        check(
            &standing(12),
            Some(fixture::at(12)),
            &expect![[r#"
            session 081040g2081040g2  busy, as of event 8 of 12
              agent      opencode
              directory  /home/project
              model      test/model
              opened     2026-11-22 09:14:04
              last event 2026-11-22 09:14:15 (68 s ago)
              as of      2026-11-22 09:14:15
              connection connected, http://127.0.0.1:4101 version 1.18.3
              breaker    closed

            message 1 040g2081040g2081  running, 1 attempt, key "build-17"
              > Why did it fail?
              > Be brief.
              Let me look.
              It
              = the agent works on it"#]],
        );
    }

    #[test]
    fn json_has_the_agreed_members() {
        let standing = standing(usize::MAX);
        let view = standing.view(fixture::session());
        let json = serde_json::to_string_pretty(&view).expect("it can be said");
        expect![[r#"
            {
              "session": "081040g2081040g2",
              "agent": "opencode",
              "status": "waiting",
              "directory": "/home/project",
              "model": "test/model",
              "title": null,
              "agent_session": "ses_1",
              "fork": null,
              "opened_at": "2026-11-22T09:14:04.000000Z",
              "at": "2026-11-22T09:14:23.000000Z",
              "events": 12,
              "cut": null,
              "earlier": 0,
              "queue": {
                "open": 1,
                "bytes": 26,
                "dead_letters": 0
              },
              "messages": [
                {
                  "id": "040g2081040g2081",
                  "key": "build-17",
                  "state": "waiting",
                  "attempts": 1,
                  "text": "Why did it fail?\nBe brief.",
                  "agent_message": "msg_1",
                  "reason": null,
                  "retry_at": null,
                  "waits_for": "rerun",
                  "may_have_arrived": false,
                  "queued_again_as": null,
                  "abort_asked": false
                }
              ],
              "turns": [
                {
                  "message": "040g2081040g2081",
                  "state": "waiting",
                  "text": "Let me look.\nIt",
                  "ending": null,
                  "stalled": null,
                  "agent_error": null,
                  "begun_at": "2026-11-22T09:14:13.000000Z",
                  "runs": [
                    {
                      "run": 1,
                      "started": true,
                      "text": "Let me look.\nIt",
                      "parts": [
                        {
                          "id": "prt_1",
                          "kind": "text",
                          "text": "Let me look.\nIt",
                          "after_hole": "",
                          "withdrawn": null
                        }
                      ],
                      "tools": [
                        {
                          "id": "call_1",
                          "tool": "bash",
                          "input": {
                            "command": "make"
                          },
                          "outcome": "lost",
                          "output": ""
                        }
                      ]
                    }
                  ],
                  "questions": []
                }
              ],
              "connection": {
                "id": "0c1g60r30c1g60r3",
                "state": "disconnected",
                "attempt": 1,
                "target": {
                  "managed": {
                    "program": null,
                    "directory": "/home/project"
                  }
                },
                "since": "2026-11-22T09:14:18.000000Z",
                "next_try": "2026-11-22T09:14:20.000000Z",
                "last_error": "the stream broke: connection reset",
                "url": null,
                "version": null,
                "pid": null,
                "gaps": []
              },
              "breaker": "closed"
            }"#]]
        .assert_eq(&json);
    }

    #[test]
    fn what_nobody_knows_is_shown_with_the_commands_that_settle_it() {
        let message = fixture::message();
        let attempt = 1;
        let reason = || "the answer was lost".to_owned();
        let lost = [
            Event::DeliveryUnknown {
                message,
                attempt,
                reason: reason(),
            },
            Event::UnknownDecided {
                message,
                attempt,
                verdict: Verdict::Wait,
                reason: reason(),
            },
        ];
        let mut shown = standing(9);
        for (seq, event) in (5..).zip(lost) {
            shown.session.apply(&fixture::session_event(seq, event));
        }
        check(
            &shown,
            None,
            &expect![[r#"
                session 081040g2081040g2  waiting, as of event 6 of 12
                  agent      opencode
                  directory  /home/project
                  model      test/model
                  opened     2026-11-22 09:14:04
                  last event 2026-11-22 09:14:09 (74 s ago)
                  connection connected, http://127.0.0.1:4101 version 1.18.3
                  breaker    closed

                message 1 040g2081040g2081  waiting, 1 attempt, key "build-17"
                  > Why did it fail?
                  > Be brief.
                  the answer was lost
                  = nobody knows whether it arrived, and a person has to say what comes next
                    recount resolve 040g2081040g2081 arrived      says: the agent has it
                    recount resolve 040g2081040g2081 resend       says: send it again, and the agent may have it twice
                    recount resolve 040g2081040g2081 dead-letter  says: give it up, and the agent may have it all the same
                    recount recover --unknown resend              sends again all that wait
                    recount recover --unknown dead-letter         gives up all that wait"#]],
        );

        let given_up = Event::MessageDeadLettered {
            message,
            reason: reason(),
        };
        let again = Event::MessageRequeued {
            message,
            again: MessageId::from_bytes([9; 10]),
        };
        for (seq, event) in (7..).zip([given_up, again]) {
            shown.session.apply(&fixture::session_event(seq, event));
        }
        check(
            &shown,
            None,
            &expect![[r#"
            session 081040g2081040g2  idle, as of event 8 of 12
              agent      opencode
              directory  /home/project
              model      test/model
              opened     2026-11-22 09:14:04
              last event 2026-11-22 09:14:11 (72 s ago)
              connection connected, http://127.0.0.1:4101 version 1.18.3
              breaker    closed

            message 1 040g2081040g2081  dead-lettered, 1 attempt, key "build-17"
              > Why did it fail?
              > Be brief.
              the answer was lost
              the agent may have it all the same
              queued again as 144gj289144gj289"#]],
        );
    }

    #[test]
    fn a_session_of_which_nothing_is_known_is_shown_all_the_same() {
        let mut standing = Standing::default();
        let closed = fixture::session_event(1, Event::SessionClosed);
        standing.session.apply(&closed);
        check(
            &standing,
            None,
            &expect![[r#"
                session 081040g2081040g2  closed, as of event 1 of 12
                  last event 2026-11-22 09:14:04 (79 s ago)"#]],
        );
    }
}
