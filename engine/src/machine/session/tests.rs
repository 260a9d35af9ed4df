//! Given events, when something happens, then exactly these events and effects.

mod amnesia;
mod delivery;
mod ending;
mod exhaustive;
mod fork;
mod output;
mod questions;
mod reruns;
mod simulated;
mod steering;
mod words;

use recount_projections::{Projection, Transcript, fold};
use recount_store::{
    Cause, Choice, Class, ConnectionId, Json, NewEvent, Placement, Position, Prompt, Recorded,
    Refusal, Rerun, Resolution, Seq, StreamId, ToolOutcome,
};

use super::*;
use crate::adapter::{
    Activity, AgentError, Answer, AnswerItem, OutputPart, Permission, Question, ReportedAnswer,
    ToolCall, ToolState,
};

/// When every test begins.
const T0: Timestamp = Timestamp(1_800_000_000_000_000);

const M1: MessageId = MessageId::from_bytes([1; 10]);
const M2: MessageId = MessageId::from_bytes([2; 10]);

fn session_id() -> SessionId {
    SessionId::from_bytes([7; 10])
}

/// The identity of the two messages at the agent.
fn a1() -> String {
    format!("agent:{M1}")
}

fn a2() -> String {
    format!("agent:{M2}")
}

/// A session's record, a machine over it, and a clock that moves only when told.
#[derive(Clone)]
struct World {
    log: Vec<Recorded>,
    state: Session,
    machine: SessionMachine,
    policy: SessionPolicy,
    now: Timestamp,
    wake_at: Option<Timestamp>,
    epoch: u64,
    /// What the connection says when it is asked for leave to try again.
    leave: Result<(), Timestamp>,
}

/// What followed.
#[derive(Debug)]
struct Then {
    events: Vec<NewEvent>,
    effects: Vec<Effect>,
}

/// The world in which this has happened, a machine that has seen none of it, and no connection.
fn given(events: impl IntoIterator<Item = Event>) -> World {
    let policy = SessionPolicy::default();
    let mut world = World {
        log: Vec::new(),
        state: Session::default(),
        machine: machine(&policy, T0),
        policy,
        now: T0,
        wake_at: None,
        epoch: 0,
        leave: Ok(()),
    };
    world.record(events);
    world
}

fn machine(policy: &SessionPolicy, now: Timestamp) -> SessionMachine {
    let identity: Identity = Arc::new(|message, _| format!("agent:{message}"));
    SessionMachine::new(session_id(), policy.clone(), identity, now)
}

impl World {
    fn record(&mut self, events: impl IntoIterator<Item = Event>) {
        let now = self.now;
        let events = events.into_iter().map(|event| NewEvent::live(event, now));
        self.append(events.collect());
    }

    /// As the log does it.
    fn append(&mut self, events: Vec<NewEvent>) {
        let first = self.log.len();
        for (index, new) in events.into_iter().enumerate() {
            let number = (first + index + 1) as u64;
            let cause = match new.cause {
                Cause::None => None,
                Cause::At(position) => {
                    assert!(position < Position(number), "a cause comes first");
                    Some(position)
                }
                Cause::Sibling(sibling) => {
                    assert!(sibling < index, "a cause comes first");
                    Some(Position((first + sibling + 1) as u64))
                }
            };
            let recorded = Recorded {
                position: Position(number),
                stream: StreamId::Session(session_id()),
                seq: Seq(number),
                at: new.at,
                cause,
                class: Class::Observed,
                provenance: new.provenance,
                id: None,
                frame: None,
                event: new.event,
            };
            self.state.apply(&recorded);
            self.log.push(recorded);
        }
    }

    /// As the shell does it: record, then do, until it is quiet.
    fn when(&mut self, input: Input) -> Then {
        let mut then = Then {
            events: Vec::new(),
            effects: Vec::new(),
        };
        let mut step = self.machine.handle(&self.state, input, self.now);
        for _ in 0..1000 {
            if step.is_quiet() {
                self.wake_at = step.wake_at;
                return then;
            }
            then.events.extend(step.events.iter().cloned());
            self.append(step.events);
            let asks = step.effects.contains(&Effect::MayRetry);
            let effects = step.effects.into_iter();
            then.effects
                .extend(effects.filter(|effect| *effect != Effect::MayRetry));
            step = if asks {
                let leave = Input::MayRetry(self.leave);
                self.machine.handle(&self.state, leave, self.now)
            } else {
                self.machine.advance(&self.state, self.now)
            };
        }
        panic!("it never becomes quiet: {then:#?}");
    }

    fn observed(&mut self, observation: Observation) -> Then {
        self.told_by(None, observation)
    }

    /// The agent says this, in this frame.
    fn told_by(&mut self, frame: Option<u64>, observation: Observation) -> Then {
        let epoch = self.epoch;
        self.when(Input::Observed {
            epoch,
            frame: frame.map(FrameNumber),
            observation,
            from_child: false,
        })
    }

    fn observed_in_child(&mut self, observation: Observation) -> Then {
        let epoch = self.epoch;
        self.when(Input::Observed {
            epoch,
            frame: None,
            observation,
            from_child: true,
        })
    }

    /// The connection stands, anew.
    fn linked(&mut self) -> Then {
        self.epoch += 1;
        let epoch = self.epoch;
        self.when(Input::Linked { epoch })
    }

    fn unlinked(&mut self, circuit_open: bool) -> Then {
        self.when(Input::Unlinked {
            circuit_open,
            reason: Some("connection refused".to_owned()),
        })
    }

    fn looked(&mut self, report: Report) -> Then {
        self.when(Input::Looked(Ok(report)))
    }

    /// Time passes, and the machine is woken.
    fn after(&mut self, pause: Duration) -> Then {
        self.now = self.now.plus(pause);
        self.when(Input::Woke)
    }

    /// Time passes until the machine wants to be woken.
    fn woken(&mut self) -> Then {
        self.now = self.now.max(self.wake_at.expect("it wants to be woken"));
        self.when(Input::Woke)
    }

    /// An application's command; what it led to, and what the machine then did.
    fn command(&mut self, command: crate::command::Command) -> Then {
        let bounds = self.policy.bounds(true);
        let (events, _) =
            crate::command::decide(&self.state, command, bounds, self.now).expect("it is accepted");
        self.append(events.clone());
        let mut then = self.when(Input::Woke);
        then.events.splice(0..0, events);
        then
    }

    /// The process dies and another one begins: the record stays, and nothing else.
    fn restart(&mut self) {
        self.machine = machine(&self.policy, self.now);
        self.state = fold(&self.log);
        self.wake_at = None;
        self.epoch = 0;
    }

    /// From here on this policy holds.
    fn adopt(&mut self, policy: SessionPolicy) {
        self.policy = policy;
        self.restart();
    }

    fn transcript(&self) -> Transcript {
        fold(&self.log)
    }

    fn state_of(&self, message: MessageId) -> MessageState {
        self.state.queue.get(message).expect("it is there").state
    }
}

impl Then {
    /// Exactly this followed.
    #[track_caller]
    fn then(
        &self,
        events: impl IntoIterator<Item = Event>,
        effects: impl IntoIterator<Item = Effect>,
    ) {
        let happened: Vec<Event> = self.events.iter().map(|new| new.event.clone()).collect();
        let events: Vec<Event> = events.into_iter().collect();
        let effects: Vec<Effect> = effects.into_iter().collect();
        assert_eq!((happened, self.effects.clone()), (events, effects));
    }

    #[track_caller]
    fn nothing(&self) {
        self.then([], []);
    }

    /// The frames that told of what followed.
    fn frames(&self) -> Vec<Option<u64>> {
        let frames = self.events.iter().map(|new| new.frame);
        frames.map(|frame| frame.map(|number| number.0)).collect()
    }

    fn provenances(&self) -> Vec<Provenance> {
        self.events.iter().map(|new| new.provenance).collect()
    }
}

// ---- events, short

fn opened() -> Event {
    Event::SessionOpened {
        connection: ConnectionId::from_bytes([9; 10]),
        agent: "scripted".to_owned(),
        directory: "/work".to_owned(),
        model: Some("fake/model".to_owned()),
        title: Some("t".to_owned()),
    }
}

fn queued(message: MessageId) -> Event {
    Event::MessageQueued {
        message,
        key: None,
        text: text_of(message),
    }
}

fn text_of(message: MessageId) -> String {
    format!("say {message}")
}

fn bind_requested() -> Event {
    Event::AgentSessionRequested {
        marker: session_id().to_string(),
    }
}

fn bound() -> Event {
    Event::AgentSessionBound {
        agent_session: "ses".to_owned(),
    }
}

fn sending(message: MessageId, attempt: u32) -> Event {
    Event::DeliveryStarted {
        message,
        attempt,
        agent_message: format!("agent:{message}"),
    }
}

fn accepted(message: MessageId) -> Event {
    Event::DeliveryAccepted {
        message,
        attempt: 1,
    }
}

fn rejected(attempt: u32, refusal: Refusal, reason: &str) -> Event {
    Event::DeliveryRejected {
        message: M1,
        attempt,
        refusal,
        reason: reason.to_owned(),
    }
}

fn dead_lettered(reason: &str) -> Event {
    Event::MessageDeadLettered {
        message: M1,
        reason: reason.to_owned(),
    }
}

fn requested(message: MessageId, run: u32) -> Event {
    Event::TurnRequested { message, run }
}

fn started(message: MessageId, run: u32) -> Event {
    Event::TurnStarted { message, run }
}

fn completed(message: MessageId, run: u32) -> Event {
    Event::TurnCompleted {
        message,
        run,
        finish: "stop".to_owned(),
    }
}

fn failed(run: u32, reason: &str) -> Event {
    Event::TurnFailed {
        message: M1,
        run,
        reason: reason.to_owned(),
    }
}

fn aborted(run: u32) -> Event {
    Event::TurnAborted { message: M1, run }
}

fn stalled(reason: &str) -> Event {
    Event::TurnStalled {
        message: M1,
        run: 1,
        reason: reason.to_owned(),
    }
}

fn interrupted(run: u32, answers: &[&str]) -> Event {
    Event::TurnInterrupted {
        message: M1,
        run,
        answers: answers.iter().map(|&answer| answer.to_owned()).collect(),
        evidence: "the agent does not work on it, and its answer has no end".to_owned(),
    }
}

fn rerun_decided(run: u32, rerun: Rerun, reason: &str) -> Event {
    Event::RerunDecided {
        message: M1,
        run,
        rerun,
        reason: reason.to_owned(),
    }
}

fn output(run: u32, part: &str, placement: Placement, text: &str) -> Event {
    Event::OutputAppended {
        message: M1,
        run,
        part: part.to_owned(),
        kind: OutputKind::Text,
        placement,
        text: text.to_owned(),
    }
}

fn replaced(run: u32, part: &str, text: &str) -> Event {
    Event::OutputReplaced {
        message: M1,
        run,
        part: part.to_owned(),
        kind: OutputKind::Text,
        text: text.to_owned(),
    }
}

fn tool_started(run: u32, call: &str) -> Event {
    Event::ToolCallStarted {
        message: M1,
        run,
        call: call.to_owned(),
        tool: "bash".to_owned(),
        input: Json(b"{}".to_vec()),
    }
}

fn tool_ended(run: u32, call: &str, outcome: ToolOutcome, output: &str) -> Event {
    Event::ToolCallEnded {
        message: M1,
        run,
        call: call.to_owned(),
        outcome,
        output: output.to_owned(),
    }
}

fn asked(permission: &str) -> Event {
    Event::PermissionAsked {
        message: M1,
        permission: permission.to_owned(),
        action: "bash".to_owned(),
        detail: "rm -r x".to_owned(),
        call: None,
    }
}

fn answered(permission: &str, answer: PermissionAnswer) -> Event {
    Event::PermissionAnswered {
        message: M1,
        permission: permission.to_owned(),
        answer,
    }
}

fn settled(permission: &str, answer: Option<PermissionAnswer>) -> Event {
    Event::PermissionSettled {
        message: M1,
        permission: permission.to_owned(),
        answer,
    }
}

fn asked_in_words(question: &str) -> Event {
    Event::QuestionAsked {
        message: M1,
        question: question.to_owned(),
        prompts: Json::of(&in_words(question).prompts),
        call: Some("c".to_owned()),
    }
}

fn answered_in_words(question: &str, answers: Option<&str>) -> Event {
    Event::QuestionAnswered {
        message: M1,
        question: question.to_owned(),
        answers: answers.map(|json| Json(json.into())),
    }
}

fn settled_in_words(question: &str, answers: Option<&str>) -> Event {
    Event::QuestionSettled {
        message: M1,
        question: question.to_owned(),
        answers: answers.map(|json| Json(json.into())),
    }
}

/// A message that the agent holds, in a session of its own.
fn held() -> Vec<Event> {
    let mut events = vec![opened(), queued(M1), sending(M1, 1)];
    events.extend([bind_requested(), bound(), accepted(M1)]);
    events
}

/// A turn that the agent was seen to work on.
fn running() -> Vec<Event> {
    let mut events = held();
    events.extend([requested(M1, 1), started(M1, 1)]);
    events
}

/// The world in which this happened, connected, and the look that a new connection brings answered by
/// "it works on it, and there is nothing new".
fn given_linked(events: impl IntoIterator<Item = Event>) -> World {
    let mut world = given(events);
    world.linked().then([], [look()]);
    world.looked(busy([])).nothing();
    world
}

// ---- effects, short

fn agent_session() -> AgentSession {
    AgentSession {
        id: "ses".to_owned(),
        directory: "/work".to_owned(),
    }
}

fn spec() -> SessionSpec {
    SessionSpec {
        directory: "/work".to_owned(),
        title: format!("t [{}]", session_id()),
    }
}

fn delivery(message: MessageId) -> Delivery {
    Delivery {
        session: agent_session(),
        agent_message: format!("agent:{message}"),
        text: text_of(message),
        model: Some("fake/model".to_owned()),
    }
}

fn store(message: MessageId) -> Effect {
    Effect::Store(delivery(message))
}

fn start(message: MessageId) -> Effect {
    Effect::Start(delivery(message))
}

fn look() -> Effect {
    look_for(M1)
}

fn look_for(message: MessageId) -> Effect {
    Effect::Look {
        session: agent_session(),
        agent_message: format!("agent:{message}"),
    }
}

fn abort() -> Effect {
    Effect::Abort(agent_session())
}

fn answer_effect(permission: &str, answer: PermissionAnswer) -> Effect {
    Effect::AnswerPermission {
        session: agent_session(),
        permission: permission.to_owned(),
        answer,
    }
}

fn words_effect(question: &str, answers: Option<&[&[&str]]>) -> Effect {
    Effect::AnswerQuestion {
        session: agent_session(),
        question: question.to_owned(),
        answers: answers.map(words),
    }
}

fn words(answers: &[&[&str]]) -> Vec<Vec<String>> {
    let texts = |texts: &&[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    answers.iter().map(texts).collect()
}

// ---- what the agent says, short

fn answer_to(parent: &str, id: &str) -> Answer {
    Answer {
        id: id.to_owned(),
        parent: parent.to_owned(),
        completed: false,
        finish: None,
        error: None,
    }
}

fn finished(id: &str, finish: &str) -> Answer {
    Answer {
        completed: true,
        finish: Some(finish.to_owned()),
        ..answer_to(&a1(), id)
    }
}

fn broken(id: &str, error: &str, aborted: bool) -> Answer {
    Answer {
        completed: true,
        error: Some(AgentError {
            name: error.to_owned(),
            reason: "in its words".to_owned(),
            aborted,
        }),
        ..answer_to(&a1(), id)
    }
}

fn with(answer: Answer, items: impl IntoIterator<Item = AnswerItem>) -> ReportedAnswer {
    ReportedAnswer {
        answer,
        refused: false,
        items: items.into_iter().collect(),
    }
}

fn part(id: &str, text: &str, ended: bool) -> OutputPart {
    OutputPart {
        id: id.to_owned(),
        kind: OutputKind::Text,
        text: text.to_owned(),
        ended,
    }
}

fn whole(id: &str, text: &str) -> AnswerItem {
    AnswerItem::Output(part(id, text, true))
}

/// A part that has not ended: the agent keeps no text of it.
fn open_part(id: &str) -> AnswerItem {
    AnswerItem::Output(part(id, "", false))
}

fn call(id: &str, state: ToolState) -> ToolCall {
    ToolCall {
        id: id.to_owned(),
        tool: "bash".to_owned(),
        state,
    }
}

fn runs() -> ToolState {
    ToolState::Running {
        input: Json(b"{}".to_vec()),
    }
}

fn done(output: &str) -> ToolState {
    ToolState::Completed {
        input: Json(b"{}".to_vec()),
        output: output.to_owned(),
    }
}

fn replied(permission: &str, answer: PermissionAnswer) -> Observation {
    Observation::PermissionReplied {
        permission: permission.to_owned(),
        answer: Some(answer),
    }
}

fn permission(id: &str) -> Permission {
    Permission {
        id: id.to_owned(),
        action: "bash".to_owned(),
        detail: "rm -r x".to_owned(),
        call: None,
    }
}

fn asks_in_words(id: &str) -> Observation {
    Observation::QuestionAsked(in_words(id))
}

fn in_words(id: &str) -> Question {
    let choice = |label: &str| Choice {
        label: label.to_owned(),
        about: String::new(),
    };
    Question {
        id: id.to_owned(),
        prompts: vec![Prompt {
            header: "Colour".to_owned(),
            text: "Which colour?".to_owned(),
            options: vec![choice("red"), choice("blue")],
            multiple: false,
            custom: true,
        }],
        call: Some("c".to_owned()),
    }
}

fn report(activity: Activity, answers: impl IntoIterator<Item = ReportedAnswer>) -> Report {
    Report {
        stored: true,
        newest: true,
        went_on: false,
        activity,
        answers: answers.into_iter().collect(),
        permissions: Vec::new(),
        questions: Vec::new(),
    }
}

fn idle(answers: impl IntoIterator<Item = ReportedAnswer>) -> Report {
    report(Activity::Idle, answers)
}

fn busy(answers: impl IntoIterator<Item = ReportedAnswer>) -> Report {
    report(Activity::Busy, answers)
}

fn absent() -> Report {
    Report {
        stored: false,
        newest: false,
        ..idle([])
    }
}

fn part_opened(answer: &str, part: &str) -> Observation {
    Observation::PartOpened {
        answer: answer.to_owned(),
        part: part.to_owned(),
        kind: OutputKind::Text,
    }
}

fn delta(answer: &str, part: &str, text: &str) -> Observation {
    Observation::Delta {
        answer: answer.to_owned(),
        part: part.to_owned(),
        text: text.to_owned(),
    }
}

fn part_ended(answer: &str, id: &str, text: &str) -> Observation {
    Observation::PartEnded {
        answer: answer.to_owned(),
        part: part(id, text, true),
    }
}

fn tool(answer: &str, id: &str, state: ToolState) -> Observation {
    Observation::Tool {
        answer: answer.to_owned(),
        call: call(id, state),
    }
}

fn unknown(reason: &str) -> CallError {
    CallError::Unknown {
        reason: reason.to_owned(),
    }
}

fn no_such_session() -> CallError {
    CallError::NoSuchSession {
        reason: "no such session".to_owned(),
    }
}

fn never_sent(reason: &str) -> CallError {
    CallError::NeverSent {
        reason: reason.to_owned(),
    }
}

fn second() -> Duration {
    Duration::from_secs(1)
}
