//! Every input in every state that one or two messages can be in, with small bounds, breadth first.
//!
//! Where the simulation tries long lives at random, this tries all short ones: whatever the agent, the network, a
//! person, the clock or a death of the process can do next, is done. States that differ only in names, numbers of
//! events and lengths of time count as one.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::iter::successors;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use recount_projections::TurnState;
use recount_projections::queue::{RefusedHow, WaitsFor};

use super::*;
use crate::command::{Bounds, Command, Word, decide};
use crate::machine::session::policy::{Retries, Retry, UnknownPolicy};
use crate::policy::Backoff;

/// What happens next.
#[derive(Debug, Clone, PartialEq)]
enum Move {
    /// The machine is given this.
    Give(Input),
    /// The call under way comes back with this.
    Back(Input),
    /// An application asks for this.
    Ask(Command),
    /// The time comes that the machine waits for.
    Wake,
    /// The process dies, and another one begins.
    Die,
}

/// One session and the machine over it, as they stand after some moves.
#[derive(Clone)]
struct Node {
    state: Session,
    machine: SessionMachine,
    now: Timestamp,
    wake_at: Option<Timestamp>,
    epoch: u64,
    /// The call under way.
    call: Option<Effect>,
    /// What led here, last first.
    trail: Option<Rc<Trail>>,
}

struct Trail {
    happened: Move,
    before: Option<Rc<Trail>>,
}

/// Everything that may matter for what comes next, without names, counts of events and lengths of time.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    messages: Vec<Option<MessageKey>>,
    agent: (bool, bool, Option<TurnKey>),
    fork: Option<ForkKey>,
    link: (bool, bool),
    calls: (Option<Flight>, Option<u8>, bool, bool),
    looks: (When, u32, u32, u32),
    seen: (Option<(bool, bool)>, bool, bool, bool),
    answers: (bool, bool, bool),
    abort: (When, bool),
    wake: When,
}

type MessageKey = (
    MessageState,
    u32,
    Option<u8>,
    Option<WaitsFor>,
    When,
    [bool; 5],
);
type ForkKey = ([bool; 4], Option<(u32, When)>);
type TurnKey = (bool, Option<(TurnState, u32, [bool; 4])>);

/// A time, as seen from now.
#[derive(PartialEq, Eq, Hash)]
enum When {
    Never,
    Due,
    Later,
}

impl When {
    fn of(time: Option<Timestamp>, now: Timestamp) -> Self {
        match time {
            None => Self::Never,
            Some(time) if time <= now => Self::Due,
            Some(_) => Self::Later,
        }
    }
}

impl Node {
    fn new(opening: &[Event], policy: &SessionPolicy) -> Self {
        let World { state, machine, .. } = {
            let mut world = given(opening.to_vec());
            world.adopt(policy.clone());
            world
        };
        Self {
            state,
            machine,
            now: T0,
            wake_at: None,
            epoch: 0,
            call: None,
            trail: None,
        }
    }

    fn key(&self) -> Key {
        let machine = &self.machine;
        let when = |time| When::of(time, self.now);
        let messages = self.state.queue.messages().iter().map(|message| {
            let refused = message.refused.map(|how| match how {
                RefusedHow::NeverSent => 0,
                RefusedHow::ForNow(_) => 1,
                RefusedHow::ForGood => 2,
                RefusedHow::Absent => 3,
            });
            let flags = [
                message.abort_asked,
                message.unproved,
                message.agent_message.is_some(),
                message.given_up.is_some(),
                message.steered,
            ];
            let retry_at = when(message.retry_at);
            let (state, waits_for) = (message.state, message.waits_for);
            // A settled message is of no more interest than that it is there.
            (!state.is_settled()).then_some((
                state,
                message.attempts,
                refused,
                waits_for,
                retry_at,
                flags,
            ))
        });
        let head = self.state.queue.head().map(|message| message.id);
        let turn = self.state.turn.as_ref().map(|turn| {
            let flags = [
                turn.run().started,
                turn.stalled.is_some(),
                turn.agent_error.is_some(),
                turn.tools_begun().next().is_some(),
            ];
            // Of an earlier turn only how it ended matters.
            let at_hand = head == Some(turn.message);
            let at_hand = at_hand.then_some((turn.state, turn.run().number, flags));
            (turn.ended_unseen, at_hand)
        });
        let open_since = match &machine.link {
            Link::Up => None,
            Link::Down {
                circuit_open_since, ..
            } => *circuit_open_since,
        };
        let call = self.call.as_ref().map(|call| match call {
            Effect::CreateSession(_) => 0,
            Effect::FindSession(_) => 1,
            Effect::Store(_) => 2,
            Effect::Start(_) => 3,
            Effect::Look { .. } => 4,
            Effect::MayRetry => 5,
            Effect::ForkSession { .. } => 7,
            Effect::Abort(_)
            | Effect::AnswerPermission { .. }
            | Effect::AnswerQuestion { .. }
            | Effect::Suspect => 6,
        });
        let ours = |attempt: Option<(MessageId, u32)>, further| {
            let head = self.state.queue.head();
            head.is_some_and(|message| attempt == Some((message.id, message.attempts + further)))
        };
        let looks = &machine.looks;
        let steering = self.state.queue.steering();
        Key {
            messages: messages.collect(),
            agent: (
                self.state.agent_session.is_some(),
                self.state.bind_requested.is_some(),
                turn,
            ),
            fork: self.state.fork.as_ref().map(|fork| {
                let flags = [
                    fork.origin.is_some(),
                    fork.added_to.is_some(),
                    fork.added_to == head,
                    fork.arrived,
                ];
                let copying = self.state.to_copy().map(|_| &machine.copying);
                let copying = copying.map(|copying| (copying.failures, when(copying.due)));
                (flags, copying)
            }),
            link: (machine.is_up(), open_since.is_some()),
            calls: (
                machine.flight,
                call,
                ours(machine.attempting, 0),
                ours(machine.leave, 1),
            ),
            looks: (
                when(looks.due),
                looks.idle,
                looks.failures,
                machine.requests,
            ),
            seen: (
                machine
                    .newest
                    .map(|(about, newest)| (head == Some(about), newest)),
                machine.rested.is_some(),
                machine.working_on.is_some(),
                machine.confirmed,
            ),
            answers: (
                !machine.answers.is_empty(),
                !machine.answers_after.is_empty(),
                steering.is_some_and(|message| machine.looks.last < message.queued_at),
            ),
            abort: (when(machine.aborting), machine.abort_sent),
            wake: when(self.wake_at),
        }
    }

    /// Everything that may happen next.
    fn moves(&self, messages: &[MessageId], second: Second) -> Vec<Move> {
        let mut moves = vec![Move::Die, Move::Ask(Command::Abort)];
        if self.wake_at.is_some() {
            moves.push(Move::Wake);
        }
        if self.machine.is_up() {
            let down = |circuit_open| Input::Unlinked {
                circuit_open,
                reason: None,
            };
            moves.extend([false, true].map(|open| Move::Give(down(open))));
        }
        let epoch = self.epoch + 1;
        moves.push(Move::Give(Input::Linked { epoch }));
        let next = messages.get(self.state.queue.messages().len());
        moves.extend(next.map(|&message| {
            let (key, text) = (None, text_of(message));
            let is_first = Some(&message) == messages.first();
            Move::Ask(match second {
                Second::Steers if !is_first => Command::Steer { message, key, text },
                Second::Steers | Second::Waits => Command::Queue { message, key, text },
            })
        }));
        let Some(head) = self.state.queue.head() else {
            return moves;
        };
        for message in self.state.queue.open() {
            let message = message.id;
            moves.push(Move::Ask(Command::Cancel { message }));
        }
        if head.state == MessageState::Waiting {
            let words = [Word::Arrived, Word::Resend, Word::GiveUp];
            moves.extend(words.map(|word| Move::Ask(Command::Resolve { word })));
            moves.extend([true, false].map(|run| Move::Ask(Command::Rerun { run })));
        }
        if let Some(call) = &self.call {
            let outcomes = self.outcomes(call);
            moves.extend(outcomes.into_iter().map(Move::Back));
        }
        moves.extend(self.says().into_iter().map(Move::Give));
        moves
    }

    /// Everything that a call may come back with.
    fn outcomes(&self, call: &Effect) -> Vec<Input> {
        let reason = || "no".to_owned();
        let failures = || {
            let retry_after = None;
            let now = CallError::RefusedForNow {
                retry_after,
                reason: reason(),
            };
            let good = CallError::RefusedForGood { reason: reason() };
            [unknown("lost"), never_sent("no"), now, good]
        };
        match call {
            Effect::CreateSession(_) | Effect::ForkSession { .. } | Effect::FindSession(_) => {
                let found = Some(Input::Bound(Ok(Some("ses".to_owned()))));
                let none = matches!(call, Effect::FindSession(_)).then_some(Input::Bound(Ok(None)));
                let failed = failures().map(|error| Input::Bound(Err(error)));
                found.into_iter().chain(none).chain(failed).collect()
            }
            Effect::Store(_) => {
                let failed = failures().into_iter().chain([no_such_session()]);
                let failed = failed.map(|error| Input::Stored(Err(error)));
                failed.chain([Input::Stored(Ok(()))]).collect()
            }
            Effect::Start(_) => {
                let failed = failures().into_iter().chain([no_such_session()]);
                let failed = failed.map(|error| Input::Started(Err(error)));
                failed.chain([Input::Started(Ok(()))]).collect()
            }
            Effect::Look { agent_message, .. } => {
                let failed = failures().into_iter().chain([no_such_session()]);
                let failed = failed.map(|error| Input::Looked(Err(error)));
                let told = self.reports(agent_message);
                let told = told.into_iter().map(|report| Input::Looked(Ok(report)));
                failed.chain(told).collect()
            }
            Effect::MayRetry => {
                let later = self.now.plus(Duration::from_secs(20));
                vec![Input::MayRetry(Ok(())), Input::MayRetry(Err(later))]
            }
            Effect::Abort(_)
            | Effect::AnswerPermission { .. }
            | Effect::AnswerQuestion { .. }
            | Effect::Suspect => Vec::new(),
        }
    }

    /// The answer that the agent is at, should it be at one.
    fn answer(&self, parent: &str) -> Answer {
        let run = self.state.turn.as_ref().map_or(0, |turn| turn.run().number);
        answer_to(parent, &format!("{parent}-{run}"))
    }

    fn reports(&self, message: &str) -> Vec<Report> {
        let begun = || with(self.answer(message), []);
        let used = AnswerItem::Tool(call("c", runs()));
        let went_on = || {
            let answer = Answer {
                completed: true,
                finish: Some("tool-calls".to_owned()),
                ..self.answer(message)
            };
            Report {
                newest: false,
                went_on: true,
                ..busy([with(answer, [])])
            }
        };
        let ended = Answer {
            completed: true,
            finish: Some("stop".to_owned()),
            ..self.answer(message)
        };
        let newer = Report {
            newest: false,
            ..idle([])
        };
        vec![
            absent(),
            newer,
            went_on(),
            idle([]),
            busy([]),
            idle([begun()]),
            busy([begun()]),
            idle([with(self.answer(message), [used])]),
            idle([with(ended, [])]),
        ]
    }

    /// What the agent may say at any time.
    fn says(&self) -> Vec<Input> {
        let (Some(head), true) = (self.state.queue.head(), self.epoch > 0) else {
            return Vec::new();
        };
        let parent = head.agent_message.as_deref().unwrap_or("nobody");
        let never = Observation::Retrying {
            attempt: 1,
            reason: "no".to_owned(),
            next: Some(Timestamp(u64::MAX)),
        };
        let began = Observation::AnswerUpdated(self.answer(parent));
        let steering = self.state.queue.steering();
        let next = steering.and_then(|message| message.agent_message.as_deref());
        let next = next.map(|parent| Observation::AnswerUpdated(answer_to(parent, parent)));
        let epoch = self.epoch;
        let said = [began, Observation::Idle, never].into_iter().chain(next);
        let said = said.map(|observation| Input::Observed {
            epoch,
            frame: None,
            observation,
            from_child: false,
        });
        said.collect()
    }

    /// The state that this leads to; none where an application is refused.
    fn after(&self, happens: Move, policy: &SessionPolicy) -> Option<Self> {
        let mut node = self.clone();
        node.trail = Some(Rc::new(Trail {
            happened: happens.clone(),
            before: node.trail.take(),
        }));
        let input = match happens {
            Move::Give(input) => input,
            Move::Back(input) => {
                node.call = None;
                input
            }
            Move::Ask(command) => {
                let bounds: Bounds = policy.bounds(true);
                let (events, _) = decide(&node.state, command, bounds, node.now).ok()?;
                if events.is_empty() {
                    return None;
                }
                node.record(events);
                Input::Woke
            }
            Move::Wake => {
                node.now = node.now.max(node.wake_at?);
                Input::Woke
            }
            Move::Die => {
                node.machine = machine(policy, node.now);
                (node.epoch, node.call) = (0, None);
                Input::Woke
            }
        };
        if let Input::Linked { epoch } = input {
            node.epoch = epoch;
        }
        let mut step = node.machine.handle(&node.state, input, node.now);
        for _ in 0..100 {
            if step.is_quiet() {
                node.wake_at = step.wake_at;
                node.check_that_it_goes_on();
                return Some(node);
            }
            node.record(step.events);
            for effect in step.effects {
                node.begin(effect);
            }
            step = node.machine.advance(&node.state, node.now);
        }
        panic!("it never becomes quiet");
    }

    fn record(&mut self, events: Vec<NewEvent>) {
        for new in events {
            let before = self.states();
            let number = self.state.seq.next();
            let about = new.event.message();
            self.state.apply(&Recorded {
                position: Position(number.0),
                stream: StreamId::Session(session_id()),
                seq: number,
                at: new.at,
                cause: None,
                class: Class::Observed,
                provenance: new.provenance,
                id: None,
                frame: None,
                event: new.event.clone(),
            });
            for ((id, from), (_, to)) in before.into_iter().zip(self.states()) {
                let allowed = from == to || (about == Some(id) && may_go(from, to));
                assert!(allowed, "from {from:?} to {to:?} by {:?}", new.event);
            }
        }
        let open = self.state.queue.open().enumerate();
        let mut under_way = open.filter(|(_, message)| message.state != MessageState::Queued);
        let beside = |at: usize, message: &Message| at == 1 && message.steered;
        assert!(
            under_way.all(|(at, message)| at == 0 || beside(at, message)),
            "two are under way"
        );
    }

    fn states(&self) -> Vec<(MessageId, MessageState)> {
        let messages = self.state.queue.messages().iter();
        messages
            .map(|message| (message.id, message.state))
            .collect()
    }

    /// A call is begun: what it does must be recorded, and it must be the only one.
    fn begin(&mut self, effect: Effect) {
        let head = self.state.queue.head();
        let is = |message: Option<&Message>, delivery: &Delivery, state| {
            let identity = Some(&delivery.agent_message);
            message.is_some_and(|message| {
                message.agent_message.as_ref() == identity && message.state == state
            })
        };
        let is_head = |delivery: &Delivery, state| is(head, delivery, state);
        let beside = |delivery: &Delivery| {
            is(self.state.queue.steering(), delivery, MessageState::Sending)
                && head.is_some_and(|head| head.state == MessageState::Running)
        };
        if let (Effect::Store(delivery) | Effect::Start(delivery), Some(fork)) =
            (&effect, &self.state.fork)
        {
            let told = fork.arrived || delivery.text.starts_with(fork::CONTEXT);
            assert!(fork.origin.is_some() || told, "nobody told it");
        }
        match &effect {
            Effect::Store(delivery) => {
                assert!(is_head(delivery, MessageState::Sending) || beside(delivery));
            }
            Effect::Start(delivery) => assert!(is_head(delivery, MessageState::Requested)),
            Effect::CreateSession(_) => assert!(self.state.bind_requested.is_some()),
            Effect::ForkSession { .. } => {
                assert!(self.state.bind_requested.is_some());
                let named = |message: &Message| message.agent_message.is_some();
                assert!(!self.state.queue.messages().iter().any(named));
            }
            Effect::FindSession(_) | Effect::Look { .. } | Effect::MayRetry => {}
            // Nobody waits for what becomes of these.
            Effect::Abort(_)
            | Effect::AnswerPermission { .. }
            | Effect::AnswerQuestion { .. }
            | Effect::Suspect => return,
        }
        assert_eq!(self.call, None, "one call at a time");
        self.call = Some(effect);
    }

    /// Whatever is open has a call under way, a time to wake, a link that is down, or a person who is asked.
    fn check_that_it_goes_on(&self) {
        let Some(head) = self.state.queue.head() else {
            return;
        };
        let asked = head.state == MessageState::Waiting && !head.abort_asked;
        assert!(
            self.call.is_some() || self.wake_at.is_some() || !self.machine.is_up() || asked,
            "it hangs: {head:?}"
        );
    }
}

/// Whether a message may go from one state to another.
fn may_go(from: MessageState, to: MessageState) -> bool {
    use MessageState as State;
    match from {
        State::Queued => matches!(
            to,
            State::Sending | State::Cancelled | State::Aborted | State::DeadLettered
        ),
        State::Sending => matches!(
            to,
            State::Accepted | State::Refused | State::Unknown | State::DeadLettered
        ),
        State::Refused => matches!(
            to,
            State::Sending | State::Cancelled | State::Aborted | State::DeadLettered
        ),
        State::Unknown => matches!(
            to,
            State::Accepted
                | State::Refused
                | State::Waiting
                | State::Aborted
                | State::DeadLettered
        ),
        // Refused: the agent forgot it before it was asked to begin. Running: a run took it up that it was sent beside.
        State::Accepted => matches!(
            to,
            State::Requested | State::Running | State::Refused | State::Failed | State::Aborted
        ),
        // Interrupted: the agent forgot it, and it may have begun.
        State::Requested => matches!(
            to,
            State::Running | State::Interrupted | State::Failed | State::Aborted
        ),
        State::Running => matches!(
            to,
            State::Interrupted | State::Completed | State::Failed | State::Aborted
        ),
        State::Interrupted => matches!(
            to,
            State::Accepted | State::Waiting | State::Failed | State::Aborted
        ),
        State::Waiting => matches!(
            to,
            State::Accepted | State::Refused | State::Failed | State::Aborted | State::DeadLettered
        ),
        State::Completed
        | State::Failed
        | State::Aborted
        | State::Cancelled
        | State::DeadLettered => false,
    }
}

/// Small bounds, so that the ends of all counts are near: on attempts and runs, and on looks and requests.
fn bounded(tries: u32, looks: u32, unknown: UnknownPolicy) -> SessionPolicy {
    let backoff = Backoff {
        delay_min: Duration::from_millis(100),
        delay_max: Duration::from_millis(100),
    };
    let retry = Retry {
        attempts_max: tries,
        backoff,
    };
    SessionPolicy {
        retries: Retries {
            never_sent: retry,
            for_now: retry,
            unknown: retry,
            ..Retries::default()
        },
        unknown,
        requests_max: looks,
        looks_max: looks,
        look_backoff: backoff,
        runs_max: tries,
        ..SessionPolicy::default()
    }
}

/// What the second message does.
#[derive(Clone, Copy)]
enum Second {
    /// It waits for its turn.
    Waits,
    /// It is to steer.
    Steers,
}

/// Tries everything; gives how many states there are, and which words a message was ever in.
fn explore(
    opening: &[Event],
    policy: &SessionPolicy,
    messages: &[MessageId],
    second: Second,
) -> (usize, HashSet<MessageState>) {
    let first = Node::new(opening, policy);
    let mut known = HashSet::from([fingerprint(&first.key())]);
    let mut words = HashSet::new();
    let mut waiting = VecDeque::from([first]);
    while let Some(node) = waiting.pop_front() {
        for happens in node.moves(messages, second) {
            let next = catch_unwind(AssertUnwindSafe(|| node.after(happens.clone(), policy)));
            let next = next.unwrap_or_else(|panic| {
                println!("{happens:?}, which came after, last first:");
                for step in successors(node.trail.as_ref(), |step| step.before.as_ref()) {
                    println!("  {:?}", step.happened);
                }
                resume_unwind(panic)
            });
            let Some(next) = next else { continue };
            words.extend(next.states().into_iter().map(|(_, state)| state));
            if known.insert(fingerprint(&next.key())) {
                waiting.push_back(next);
            }
        }
    }
    (known.len(), words)
}

fn fingerprint(key: &Key) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// Every word but `Interrupted`, which is decided on in the same breath.
const WORDS: usize = 13;

#[test]
fn every_input_in_every_state_of_one_message() {
    let (states, words) = explore(
        &[opened()],
        &bounded(2, 1, UnknownPolicy::Ask),
        &[M1],
        Second::Waits,
    );
    println!("{states} states");
    assert!(states > 30_000, "{states} are suspiciously few");
    assert_eq!(words.len(), WORDS, "{words:?}");
}

#[test]
fn every_input_in_every_state_where_nobody_is_asked() {
    for (tries, unknown) in [(2, UnknownPolicy::Resend), (1, UnknownPolicy::DeadLetter)] {
        let (states, _) = explore(
            &[opened()],
            &bounded(tries, 1, unknown),
            &[M1],
            Second::Waits,
        );
        println!("{states} states where the policy is {unknown:?}");
        assert!(states > 7_000, "{states} are suspiciously few");
    }
}

#[test]
fn every_input_in_every_state_of_two_messages() {
    let policy = bounded(1, 1, UnknownPolicy::Ask);
    let (states, _) = explore(&[opened()], &policy, &[M1, M2], Second::Waits);
    println!("{states} states");
    assert!(states > 30_000, "{states} are suspiciously few");
}

#[test]
fn every_input_in_every_state_of_a_message_and_one_that_steers() {
    let policy = bounded(1, 1, UnknownPolicy::Ask);
    let (states, _) = explore(&[opened()], &policy, &[M1, M2], Second::Steers);
    println!("{states} states where the second steers");
    assert!(states > 50_000, "{states} are suspiciously few");
}

#[test]
fn every_input_in_every_state_of_a_session_that_was_forked() {
    let policy = bounded(2, 1, UnknownPolicy::DeadLetter);
    let opening = [opened(), fork::forked()];
    let (states, _) = explore(&opening, &policy, &[M1], Second::Waits);
    println!("{states} states of a session that was forked");
    assert!(states > 15_000, "{states} are suspiciously few");
}

#[test]
#[ignore = "takes minutes: a million states and more"]
fn every_input_in_every_state_with_wider_bounds() {
    for second in [Second::Waits, Second::Steers] {
        let (states, words) = explore(
            &[opened()],
            &bounded(2, 2, UnknownPolicy::Ask),
            &[M1, M2],
            second,
        );
        println!("{states} states");
        assert_eq!(words.len(), WORDS, "{words:?}");
    }
}
