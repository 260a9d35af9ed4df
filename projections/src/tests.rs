//! Given events, exactly this state; and whatever the events, no panic and one truth.

use std::collections::BTreeSet;

use proptest::prelude::*;
use recount_store::{
    Choice, ConnectionId, ConnectionState, Event, Hash, Json, MessageId, NewEvent, OutputKind,
    PermissionAnswer, Placement, Position, Prompt, Recorded, Refusal, Rerun, Resolution, Seq,
    SessionId, StreamId, Target, Timestamp, ToolOutcome, Verdict, derived,
};

use crate::turn::{Answered, Asks, Call, CallOutcome, Item, Part, Question, Run};
use crate::*;

const M1: MessageId = MessageId::from_bytes([1; 10]);
const M2: MessageId = MessageId::from_bytes([2; 10]);
const M3: MessageId = MessageId::from_bytes([3; 10]);

fn session(number: u8) -> StreamId {
    StreamId::Session(SessionId::from_bytes([number; 10]))
}

fn recorded(stream: StreamId, number: u64, event: Event) -> Recorded {
    let at = Timestamp(number * 1_000_000);
    NewEvent::live(event, at).recorded(stream, Seq(number), Position(number))
}

fn given(events: impl IntoIterator<Item = Event>) -> Vec<Recorded> {
    let numbered = (1..).zip(events);
    numbered
        .map(|(number, event)| recorded(session(7), number, event))
        .collect()
}

fn queued(message: MessageId) -> Event {
    Event::MessageQueued {
        message,
        key: Some(format!("key of {message}")),
        text: "hi".to_owned(),
    }
}

fn sending(message: MessageId) -> Event {
    Event::DeliveryStarted {
        message,
        attempt: 1,
        agent_message: "a".to_owned(),
    }
}

fn output(placement: Placement, text: &str) -> Event {
    Event::OutputAppended {
        message: M1,
        run: 1,
        part: "p".to_owned(),
        kind: OutputKind::Text,
        placement,
        text: text.to_owned(),
    }
}

/// A turn of two runs, with everything that a turn can hold.
fn a_long_turn() -> Vec<Event> {
    let (message, run) = (M1, 1);
    vec![
        queued(M1),
        sending(M1),
        Event::DeliveryAccepted {
            message,
            attempt: 1,
        },
        Event::TurnRequested { message, run },
        Event::TurnStarted { message, run },
        output(Placement::End, "one "),
        output(Placement::AfterHole, "three"),
        Event::ToolCallStarted {
            message,
            run,
            call: "c".to_owned(),
            tool: "bash".to_owned(),
            input: Json(b"{}".to_vec()),
        },
        Event::PermissionAsked {
            message,
            permission: "q".to_owned(),
            action: "bash".to_owned(),
            detail: "ls".to_owned(),
            call: Some("c".to_owned()),
        },
        Event::PermissionAnswered {
            message,
            permission: "q".to_owned(),
            answer: PermissionAnswer::Once,
        },
        Event::TurnInterrupted {
            message,
            run,
            answers: vec!["x1".to_owned()],
            evidence: String::new(),
        },
        Event::ToolCallEnded {
            message,
            run,
            call: "c".to_owned(),
            outcome: ToolOutcome::Lost,
            output: String::new(),
        },
        Event::RerunDecided {
            message,
            run,
            rerun: Rerun::Run,
            reason: String::new(),
        },
        Event::TurnRequested { message, run: 2 },
    ]
}

#[test]
fn a_turn_holds_what_was_asked_in_words_and_what_became_of_it() {
    let message = M1;
    let prompts = vec![Prompt {
        header: "Colour".to_owned(),
        text: "Which?".to_owned(),
        options: vec![Choice {
            label: "red".to_owned(),
            about: "Like fire".to_owned(),
        }],
        multiple: false,
        custom: true,
    }];
    let asked = |question: &str, prompts: Json| Event::QuestionAsked {
        message,
        question: question.to_owned(),
        prompts,
        call: None,
    };
    let json = |text: &str| Some(Json(text.into()));
    let answered = |question: &str, answers| Event::QuestionAnswered {
        message,
        question: question.to_owned(),
        answers,
    };
    let settled = |question: &str, answers| Event::QuestionSettled {
        message,
        question: question.to_owned(),
        answers,
    };
    let all = Json::of(&prompts);
    let events = given([
        Event::TurnRequested { message, run: 1 },
        asked("ours", all.clone()),
        asked("refused", all.clone()),
        asked("late", all.clone()),
        asked("others", all.clone()),
        asked("gone", all),
        asked("odd", Json(b"?".to_vec())),
        answered("ours", json(r#"[["red"]]"#)),
        answered("refused", None),
        Event::QuestionExpired {
            message,
            question: "late".to_owned(),
            reason: "nobody was there".to_owned(),
        },
        settled("ours", None),
        settled("refused", json("null")),
        settled("others", json(r#"[["red","blue"]]"#)),
        settled("gone", None),
    ]);
    let turn = fold::<Transcript>(&events).turns.remove(0);
    let words = |texts: &[&str]| {
        let texts = texts.iter().map(|&text| text.to_owned()).collect();
        Some(Answered::Words(vec![texts]))
    };
    let question = |id: &str, second: u64, answer, settled| Question {
        id: id.to_owned(),
        asks: Asks::Words(prompts.clone()),
        asked_at: Timestamp(second * 1_000_000),
        answer,
        expired: None,
        settled,
    };
    let late = Question {
        expired: Some("nobody was there".to_owned()),
        ..question("late", 4, Some(Answered::Reject), false)
    };
    let odd = Question {
        asks: Asks::Words(vec![Prompt {
            header: String::new(),
            text: "?".to_owned(),
            options: Vec::new(),
            multiple: false,
            custom: true,
        }]),
        ..question("odd", 7, None, false)
    };
    assert_eq!(
        turn.questions,
        [
            question("ours", 2, words(&["red"]), true),
            question("refused", 3, Some(Answered::Reject), true),
            late,
            question("others", 5, words(&["red", "blue"]), true),
            question("gone", 6, None, true),
            odd.clone(),
        ]
    );
    assert_eq!(turn.open_questions().collect::<Vec<_>>(), [&odd]);
    // The last answer, and the last that is settled, let the time count anew.
    assert_eq!(turn.counts_from, Timestamp(14_000_000));
}

#[test]
fn whoever_decides_is_shown_what_the_dead_run_had_begun() {
    let message = M1;
    let dead = a_long_turn();
    let decided = dead
        .iter()
        .position(|event| matches!(event, Event::RerunDecided { .. }))
        .expect("it was decided");
    let mut events = dead[..decided].to_vec();
    let state: Session = fold(&given(events.clone()));
    assert_eq!(state.waits(), None);
    events.push(Event::RerunDecided {
        message,
        run: 1,
        rerun: Rerun::Wait,
        reason: String::new(),
    });
    let since = Timestamp(events.len() as u64 * 1_000_000);
    // An abort does not let it wait for any less time.
    events.push(Event::TurnAbortAsked { message });
    let state: Session = fold(&given(events));
    let call = Call {
        id: "c".to_owned(),
        tool: "bash".to_owned(),
        input: "{}".to_owned(),
        outcome: Some((CallOutcome::Lost, String::new())),
    };
    assert_eq!(
        state.waits(),
        Some(Waits {
            message: state.queue.head().expect("it is open"),
            since,
            decision: Some(WaitsFor::Rerun),
            questions: Vec::new(),
            calls: vec![(1, &call)],
            text: "one ".to_owned(),
            has_hole: true,
        })
    );
}

#[test]
fn whoever_is_asked_is_shown_what_and_since_when() {
    let message = M1;
    let asked = |permission: &str| Event::PermissionAsked {
        message,
        permission: permission.to_owned(),
        action: "bash".to_owned(),
        detail: "ls".to_owned(),
        call: None,
    };
    let events = given([
        queued(message),
        sending(message),
        Event::TurnRequested { message, run: 1 },
        Event::TurnStarted { message, run: 1 },
        asked("p"),
        asked("q"),
        Event::PermissionAnswered {
            message,
            permission: "p".to_owned(),
            answer: PermissionAnswer::Once,
        },
    ]);
    let state: Session = fold(&events);
    let turn = state.turn.as_ref().expect("it runs");
    assert_eq!(
        state.waits(),
        Some(Waits {
            message: state.queue.head().expect("it is open"),
            since: Timestamp(6_000_000),
            decision: None,
            questions: vec![&turn.questions[1]],
            calls: Vec::new(),
            text: String::new(),
            has_hole: false,
        })
    );
}

#[test]
fn a_turn_holds_what_was_said_and_done_in_each_run() {
    let events = given(a_long_turn());
    let state: Session = fold(&events);
    let first = Run {
        number: 1,
        started: true,
        items: vec![
            Item::Part(Part {
                id: "p".to_owned(),
                reasoning: false,
                text: "one ".to_owned(),
                after_hole: "three".to_owned(),
                withdrawn: None,
            }),
            Item::Call(Call {
                id: "c".to_owned(),
                tool: "bash".to_owned(),
                input: "{}".to_owned(),
                outcome: Some((CallOutcome::Lost, String::new())),
            }),
        ],
    };
    let turn = Turn {
        message: M1,
        state: TurnState::Requested,
        runs: vec![
            first,
            Run {
                number: 2,
                started: false,
                items: Vec::new(),
            },
        ],
        requested_at: Timestamp(14_000_000),
        begun_at: Timestamp(14_000_000),
        counts_from: Timestamp(14_000_000),
        questions: vec![Question {
            id: "q".to_owned(),
            asks: Asks::Permission {
                action: "bash".to_owned(),
                detail: "ls".to_owned(),
            },
            asked_at: Timestamp(9_000_000),
            answer: Some(Answered::Once),
            expired: None,
            settled: true,
        }],
        dead_answers: vec!["x1".to_owned()],
        stalled: None,
        stalls: 0,
        ended_unseen: false,
        agent_retry: None,
        agent_error: None,
        ending: None,
        moved: Position(14),
    };
    assert_eq!(state.turn.as_ref(), Some(&turn));
    assert_eq!(state.status(), Status::Busy);
    let transcript: Transcript = fold(&events);
    assert_eq!(
        transcript,
        Transcript {
            messages: vec![(M1, "hi".to_owned())],
            turns: vec![turn],
        }
    );
}

#[test]
fn a_hole_is_closed_by_what_belongs_into_it() {
    let mut events = a_long_turn()[..7].to_vec();
    events.push(output(Placement::IntoHole, "two "));
    let state: Session = fold(&given(events));
    assert_eq!(
        state.turn.map(|turn| turn.text()),
        Some("one two three".to_owned())
    );
}

#[test]
fn what_came_late_stands_where_the_agent_has_it() {
    let part = |name: &str| Event::OutputAppended {
        message: M1,
        run: 1,
        part: name.to_owned(),
        kind: OutputKind::Text,
        placement: Placement::End,
        text: name.to_owned(),
    };
    let call = |name: &str| Event::ToolCallStarted {
        message: M1,
        run: 1,
        call: name.to_owned(),
        tool: "bash".to_owned(),
        input: Json(b"{}".to_vec()),
    };
    let mut events = a_long_turn()[..5].to_vec();
    assert!(matches!(events[4], Event::TurnStarted { .. }));
    events.extend(["a", "d", "e"].map(part));
    events.extend([call("c"), part("b")]);
    let items = ["b", "c", "d", "e", "of which nothing is known"];
    events.push(Event::OutputOrdered {
        message: M1,
        run: 1,
        items: items.map(str::to_owned).to_vec(),
    });
    // It goes on behind them.
    events.push(part("f"));
    let state: Session = fold(&given(events));
    let turn = state.turn.expect("it is there");
    let items: Vec<&str> = turn.run().items.iter().map(Item::id).collect();
    assert_eq!(items, ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(turn.text(), "abdef");
}

#[test]
fn what_an_agent_takes_back_is_kept_apart() {
    let mut events = a_long_turn()[..7].to_vec();
    events.push(Event::OutputReplaced {
        message: M1,
        run: 1,
        part: "p".to_owned(),
        kind: OutputKind::Text,
        text: "new".to_owned(),
    });
    let state: Session = fold(&given(events));
    let turn = state.turn.expect("it is there");
    let part = turn.run().part("p").expect("it is there");
    assert_eq!(
        (
            part.text.as_str(),
            part.after_hole.as_str(),
            part.withdrawn.as_deref()
        ),
        ("new", "", Some("one three"))
    );
}

#[test]
fn a_message_goes_from_word_to_word() {
    use MessageState as State;
    let (message, run, attempt) = (M1, 1, 1);
    let reason = String::new;
    let mut events = Vec::new();
    for (event, state) in [
        (queued(M1), State::Queued),
        (sending(M1), State::Sending),
        (
            Event::DeliveryRejected {
                message,
                attempt,
                refusal: Refusal::NeverSent,
                reason: reason(),
            },
            State::Refused,
        ),
        (
            Event::RetryScheduled {
                message,
                attempt: 2,
                at: Timestamp(1),
            },
            State::Refused,
        ),
        (sending(M1), State::Sending),
        (
            Event::DeliveryUnknown {
                message,
                attempt,
                reason: reason(),
            },
            State::Unknown,
        ),
        (
            Event::DeliveryResolved {
                message,
                attempt,
                resolution: Resolution::Stored,
                evidence: reason(),
            },
            State::Accepted,
        ),
        (Event::TurnRequested { message, run }, State::Requested),
        (Event::TurnStarted { message, run }, State::Running),
        (
            Event::TurnInterrupted {
                message,
                run,
                answers: Vec::new(),
                evidence: reason(),
            },
            State::Interrupted,
        ),
        (
            Event::RerunDecided {
                message,
                run,
                rerun: Rerun::Wait,
                reason: reason(),
            },
            State::Waiting,
        ),
        (
            Event::RerunDecided {
                message,
                run,
                rerun: Rerun::Run,
                reason: reason(),
            },
            State::Accepted,
        ),
        (Event::TurnAborted { message, run }, State::Aborted),
        // Settled is settled.
        (Event::TurnStarted { message, run }, State::Aborted),
    ] {
        events.push(event);
        let state_now: Session = fold(&given(events.clone()));
        assert_eq!(
            state_now.queue.get(M1).map(|m| m.state),
            Some(state),
            "{:?}",
            events.last()
        );
    }
}

fn unknown(message: MessageId) -> Event {
    Event::DeliveryUnknown {
        message,
        attempt: 1,
        reason: String::new(),
    }
}

fn verdict(verdict: Verdict) -> Event {
    Event::UnknownDecided {
        message: M1,
        attempt: 1,
        verdict,
        reason: String::new(),
    }
}

fn dead_lettered(message: MessageId) -> Event {
    Event::MessageDeadLettered {
        message,
        reason: String::new(),
    }
}

#[test]
fn an_outcome_that_nobody_can_find_out_is_decided() {
    use MessageState as State;
    let of = |decided: &[Verdict]| {
        let events = [queued(M1), sending(M1), unknown(M1)];
        let decided = decided.iter().map(|&one| verdict(one));
        let state: Session = fold(&given(events.into_iter().chain(decided)));
        let message = state.queue.get(M1).cloned().expect("it is there");
        (message.state, message.waits_for, message.unproved)
    };
    let outcome = Some(WaitsFor::Outcome);
    assert_eq!(of(&[Verdict::Wait]), (State::Waiting, outcome, true));
    assert_eq!(of(&[Verdict::Resend]), (State::Refused, None, true));
    assert_eq!(of(&[Verdict::Arrived]), (State::Accepted, None, false));
    assert_eq!(of(&[Verdict::GiveUp]), (State::Unknown, None, true));
    let waited = of(&[Verdict::Wait, Verdict::Arrived]);
    assert_eq!(waited, (State::Accepted, None, false));
    let waited = of(&[Verdict::Wait, Verdict::GiveUp]);
    assert_eq!(waited, (State::Waiting, outcome, true));
}

#[test]
fn a_dead_letter_says_whether_it_may_have_arrived_until_it_is_queued_again() {
    let of = |events: &[Event]| {
        let events = [queued(M1)].into_iter().chain(events.iter().cloned());
        let events = given(events.chain([dead_lettered(M1)]));
        let state: Session = fold(&events);
        let pending: Pending = fold(&events);
        let (message, given_up) = state.queue.dead_letters().next().expect("it is there");
        assert_eq!(message.id, M1);
        assert_eq!(pending.dead_letters.len(), 1);
        assert_eq!(pending.sessions.len(), 0);
        given_up.unknown
    };
    let resolved = |resolution| Event::DeliveryResolved {
        message: M1,
        attempt: 1,
        resolution,
        evidence: String::new(),
    };
    let refused = Event::DeliveryRejected {
        message: M1,
        attempt: 1,
        refusal: Refusal::NeverSent,
        reason: String::new(),
    };
    let (sent, lost) = (sending(M1), unknown(M1));
    assert!(!of(&[]));
    assert!(!of(&[sent.clone(), refused.clone()]));
    assert!(of(std::slice::from_ref(&sent)));
    assert!(of(&[sent.clone(), lost.clone()]));
    assert!(of(&[sent.clone(), lost.clone(), verdict(Verdict::Wait)]));
    let absent = resolved(Resolution::Absent);
    assert!(!of(&[sent.clone(), lost.clone(), absent]));
    // A later attempt that certainly did not arrive proves nothing of the one before.
    let resent = verdict(Verdict::Resend);
    assert!(of(&[sent.clone(), lost, resent, sent, refused]));

    let again = Event::MessageRequeued {
        message: M1,
        again: M2,
    };
    let events = given([queued(M1), dead_lettered(M1), queued(M2), again]);
    let state: Session = fold(&events);
    assert_eq!(state.queue.dead_letters().count(), 0);
    assert_eq!(state.queue.head().map(|message| message.id), Some(M2));
    let given_up = state.queue.get(M1).and_then(|message| message.given_up);
    assert_eq!(given_up.and_then(|given_up| given_up.again), Some(M2));
    assert!(fold::<Pending>(&events).dead_letters.is_empty());
}

#[test]
fn the_queue_knows_how_many_bytes_wait() {
    let text = |text: &str| Event::MessageQueued {
        message: M1,
        key: None,
        text: text.to_owned(),
    };
    let mut events = vec![text("four"), queued(M2)];
    let waiting: Queue = fold(&given(events.clone()));
    let more = waiting.bytes() - 4;
    events.push(Event::MessageCancelled { message: M1 });
    let left: Queue = fold(&given(events));
    assert_eq!((left.bytes(), left.bytes() > 0), (more, true));
}

#[test]
fn the_turn_of_a_message_that_steers_begins_where_a_run_takes_it_up() {
    let running = |message| {
        let run = 1;
        [
            Event::TurnRequested { message, run },
            Event::TurnStarted { message, run },
        ]
    };
    let mut events = vec![queued(M1), sending(M1), queued(M2), queued(M3)];
    events.extend(running(M1));
    let steered = |message| Event::MessageSteered { message };
    let of = |events: &[Event]| fold::<Session>(&given(events.to_vec()));
    let steering = |state: &Session| state.queue.steering().map(|message| message.id);
    assert_eq!(steering(&of(&events)), None);
    // It keeps its place.
    events.push(steered(M3));
    assert_eq!(steering(&of(&events)), None);
    events.extend([steered(M2), sending(M2)]);
    assert_eq!(steering(&of(&events)), Some(M2));

    let accepted = Event::DeliveryAccepted {
        message: M2,
        attempt: 1,
    };
    let completed = Event::TurnCompleted {
        message: M1,
        run: 1,
        finish: "tool-calls".to_owned(),
    };
    events.extend([accepted, completed]);
    let mut taken_up = events.clone();
    taken_up.push(Event::TurnStarted {
        message: M2,
        run: 1,
    });
    let state = of(&taken_up);
    let turn = state.turn_of(M2).expect("it has begun");
    assert_eq!((turn.state, turn.run().started), (TurnState::Running, true));
    assert_eq!(steering(&state), Some(M3));
    let transcript: Transcript = fold(&given(taken_up));
    let turns = transcript.turns.iter().map(|turn| turn.message);
    assert_eq!(turns.collect::<Vec<_>>(), [M1, M2]);

    // Where it ends before anybody saw whether it was taken up, the agent may be at work on it.
    let unseen = |events: &[Event]| of(events).turn.is_some_and(|turn| turn.ended_unseen);
    assert!(!unseen(&events));
    events.push(Event::TurnAborted {
        message: M2,
        run: 0,
    });
    assert!(unseen(&events));
}

/// Forked from a session of which the agent keeps something.
fn forked() -> Event {
    Event::SessionForked {
        from: SessionId::from_bytes([8; 10]),
        at: Seq(40),
        agent_session: Some("old".to_owned()),
        through: Some("a8".to_owned()),
        context: Some("what was said".to_owned()),
    }
}

fn bound(agent_session: &str) -> Event {
    Event::AgentSessionBound {
        agent_session: agent_session.to_owned(),
    }
}

fn accepted(message: MessageId) -> Event {
    Event::DeliveryAccepted {
        message,
        attempt: 1,
    }
}

fn copied() -> Event {
    Event::AgentSessionForked {
        agent_session: "copy".to_owned(),
    }
}

/// What is to be copied, and for each of two messages whether it lacks the context and what of it it brings.
type Continued = (Option<String>, [(bool, Option<String>); 2]);

fn continued(events: &[Event]) -> Continued {
    let state: Session = fold(&given(events.to_vec()));
    let origin = state.to_copy().map(|origin| origin.through.clone());
    let of = |message| {
        let context = state.context_of(message);
        (state.lacks_context(message), context.map(str::to_owned))
    };
    (origin, [of(M1), of(M2)])
}

#[test]
fn a_fork_goes_on_from_a_copy_where_the_agent_makes_one() {
    let nothing = || [(false, None), (false, None)];
    let mut events = vec![forked(), queued(M1), queued(M2)];
    assert_eq!(continued(&events), (Some("a8".to_owned()), nothing()));
    events.push(copied());
    assert_eq!(continued(&events), (None, nothing()));
}

#[test]
fn a_fork_goes_on_from_its_context_where_the_agent_makes_no_copy() {
    let refused = Event::AgentForkRefused {
        reason: "no such session".to_owned(),
    };
    let said = || Some("what was said".to_owned());
    let mut events = vec![forked(), queued(M1), queued(M2), refused, bound("new")];
    assert_eq!(continued(&events), (None, [(true, None), (true, None)]));
    events.push(Event::ContextAdded { message: M1 });
    assert_eq!(continued(&events), (None, [(false, said()), (true, None)]));

    // The first did not arrive, so the second brings it.
    let mut given_up = events.clone();
    given_up.push(Event::MessageDeadLettered {
        message: M1,
        reason: String::new(),
    });
    given_up.push(Event::ContextAdded { message: M2 });
    assert_eq!(
        continued(&given_up),
        (None, [(true, None), (false, said())])
    );

    // The first arrived, and says the same whenever it is sent again.
    events.extend([sending(M1), accepted(M1)]);
    assert_eq!(continued(&events), (None, [(false, said()), (false, None)]));
}

#[test]
fn a_fork_whose_copy_the_agent_lost_goes_on_from_its_context() {
    let lost = Event::AgentSessionLost {
        agent_session: "copy".to_owned(),
    };
    let events = [
        forked(),
        queued(M1),
        copied(),
        sending(M1),
        accepted(M1),
        lost,
        queued(M2),
    ];
    assert_eq!(continued(&events), (None, [(true, None), (true, None)]));
}

#[test]
fn a_settled_message_gives_its_text_and_its_place_back() {
    let state: Session = fold(&given([
        queued(M1),
        queued(M2),
        Event::MessageCancelled { message: M1 },
    ]));
    assert_eq!(
        state.queue.get(M1).and_then(|message| message.text.clone()),
        None
    );
    assert_eq!(state.queue.head().map(|message| message.id), Some(M2));
    let key = format!("key of {M1}");
    assert_eq!(state.queue.by_key(&key).map(|message| message.id), Some(M1));
}

#[test]
fn questions_of_a_turn_that_ended_are_remembered_as_stale() {
    let mut events = a_long_turn()[..9].to_vec();
    events.extend([
        Event::TurnAborted {
            message: M1,
            run: 1,
        },
        queued(M2),
        Event::TurnRequested {
            message: M2,
            run: 1,
        },
    ]);
    let state: Session = fold(&given(events));
    assert_eq!(state.stale_questions, ["q"]);
}

// ---- a front that is cut

/// A session from its opening to its closing.
fn a_whole_session() -> Vec<Event> {
    let mut events = vec![
        Event::SessionOpened {
            connection: ConnectionId::from_bytes([3; 10]),
            agent: "opencode".to_owned(),
            directory: "/srv/project".to_owned(),
            model: None,
            title: None,
        },
        Event::AgentSessionRequested {
            marker: "m".to_owned(),
        },
        Event::AgentSessionBound {
            agent_session: "s".to_owned(),
        },
    ];
    events.extend(a_long_turn());
    events.extend([
        output(Placement::IntoHole, "two "),
        Event::TurnCompleted {
            message: M1,
            run: 2,
            finish: "stop".to_owned(),
        },
        queued(M2),
        sending(M2),
        Event::DeliveryUnknown {
            message: M2,
            attempt: 1,
            reason: String::new(),
        },
        Event::DeliveryResolved {
            message: M2,
            attempt: 1,
            resolution: Resolution::Absent,
            evidence: String::new(),
        },
        Event::MessageDeadLettered {
            message: M2,
            reason: String::new(),
        },
        Event::SessionClosed,
    ]);
    events
}

/// A connection whose server dies once, until its breaker has opened and closed.
fn a_whole_connection() -> Vec<Event> {
    use ConnectionState as State;
    let changed = |from, to| Event::ConnectionChanged { from, to };
    let reason = String::new;
    let failed = |attempt| Event::ConnectFailed {
        attempt,
        reason: reason(),
    };
    let agent_session = || "s".to_owned();
    vec![
        Event::ConnectionOpened {
            agent: "opencode".to_owned(),
            target: Target::Url("http://127.0.0.1:1".to_owned()),
        },
        changed(State::Disconnected, State::Connecting),
        Event::ServerStartDecided {
            mark: "m".to_owned(),
            port: 1,
        },
        Event::ServerSpawned { pid: 1, started: 2 },
        Event::ServerReady {
            url: "http://127.0.0.1:1".to_owned(),
            version: "1".to_owned(),
        },
        Event::StreamOpened,
        changed(State::Connecting, State::Connected),
        Event::ProbeFailed { reason: reason() },
        Event::ProbeRecovered,
        Event::StreamLost { reason: reason() },
        Event::ServerExited { how: reason() },
        failed(1),
        Event::ReconnectScheduled {
            attempt: 2,
            at: Timestamp(9),
        },
        failed(2),
        Event::CircuitOpened {
            failures: 2,
            until: Timestamp(10),
        },
        Event::CircuitHalfOpened,
        Event::CircuitClosed,
        Event::GapFound {
            agent_session: agent_session(),
            from: 1,
            to: 2,
        },
        Event::GapFilled {
            agent_session: agent_session(),
        },
        Event::ServerStopDecided { reason: reason() },
        changed(State::Connected, State::Disconnected),
    ]
}

/// What all projections make of some events, but for where the last of them stood.
fn all_folds(events: &[Recorded]) -> impl PartialEq + std::fmt::Debug + use<> {
    let session: Session = fold(events);
    let pending: Pending = fold(events);
    let answers = (session.questions_open(), session.head().is_some());
    let transcript: Transcript = fold(events);
    let turns = derived::encode(&(transcript, &session.turn));
    (
        (answers, turns, session.queue),
        (pending.sessions, pending.servers),
        fold::<Connection>(events),
        fold::<Breaker>(events),
        fold::<Queue>(events),
    )
}

/// Folds what is left after every cut; the cut itself moves nothing, but that a session is closed by it.
fn every_front_can_be_cut(stream: StreamId, events: Vec<Event>) {
    let numbered = (1..).zip(events);
    let whole: Vec<_> = numbered
        .map(|(number, event)| recorded(stream, number, event))
        .collect();
    for gone in 0..=whole.len() {
        let mut left = whole[gone..].to_vec();
        let before = all_folds(&left);
        let number = whole.len() as u64 + 1;
        let cut = Event::StreamCut {
            before: Seq(gone as u64 + 1),
            hash: Hash([7; 32]),
        };
        left.push(recorded(stream, number, cut));
        assert_eq!(all_folds(&left), before, "{gone} are gone");
        if let StreamId::Session(_) = stream {
            let status = fold::<Session>(&left).status();
            assert_eq!(status, Status::Closed, "{gone} are gone");
        }
    }
}

#[test]
fn every_front_of_a_session_and_of_a_connection_can_be_cut() {
    every_front_can_be_cut(session(7), a_whole_session());
    let connection = StreamId::Connection(ConnectionId::from_bytes([3; 10]));
    every_front_can_be_cut(connection, a_whole_connection());
}

// ---- whatever the events

/// Any event about one of two messages, sensible or not.
pub(crate) fn any_event() -> impl Strategy<Value = Event> {
    let message = prop_oneof![Just(M1), Just(M2)];
    let shape = (message, 0_u8..38, 1_u32..4, "[a-c]{0,3}", "[pq]");
    shape.prop_map(|(message, kind, run, text, id)| {
        let attempt = run;
        let part = || id.clone();
        let kind_of = OutputKind::Text;
        let appended = |placement| Event::OutputAppended {
            message,
            run,
            part: id.clone(),
            kind: kind_of,
            placement,
            text: text.clone(),
        };
        let decided = |rerun| Event::RerunDecided {
            message,
            run,
            rerun,
            reason: text.clone(),
        };
        let resolved = |resolution| Event::DeliveryResolved {
            message,
            attempt,
            resolution,
            evidence: text.clone(),
        };
        let verdict = |verdict| Event::UnknownDecided {
            message,
            attempt,
            verdict,
            reason: text.clone(),
        };
        match kind {
            0 => sending(message),
            1 => Event::DeliveryAccepted { message, attempt },
            2 => Event::DeliveryUnknown {
                message,
                attempt,
                reason: text.clone(),
            },
            3 => resolved(Resolution::Absent),
            4 => resolved(Resolution::Stored),
            5 | 6 => Event::TurnRequested { message, run },
            7 => Event::TurnStarted { message, run },
            8 => appended(Placement::End),
            9 => appended(Placement::AfterHole),
            10 => appended(Placement::IntoHole),
            11 => Event::OutputReplaced {
                message,
                run,
                part: part(),
                kind: kind_of,
                text: text.clone(),
            },
            12 => Event::ToolCallStarted {
                message,
                run,
                call: part(),
                tool: text.clone(),
                input: Json(text.clone().into_bytes()),
            },
            13 => Event::ToolCallEnded {
                message,
                run,
                call: part(),
                outcome: ToolOutcome::Completed,
                output: text.clone(),
            },
            14 => Event::PermissionAsked {
                message,
                permission: part(),
                action: text.clone(),
                detail: text.clone(),
                call: None,
            },
            15 => Event::PermissionAnswered {
                message,
                permission: part(),
                answer: PermissionAnswer::Reject,
            },
            16 => Event::PermissionSettled {
                message,
                permission: part(),
                answer: (run == 1).then_some(PermissionAnswer::Once),
            },
            17 => Event::TurnInterrupted {
                message,
                run,
                answers: vec![text.clone()],
                evidence: text.clone(),
            },
            18 => decided(Rerun::Run),
            19 => decided(Rerun::Wait),
            20 => decided(Rerun::GiveUp),
            21 => Event::TurnCompleted {
                message,
                run,
                finish: text.clone(),
            },
            22 => Event::TurnAborted { message, run },
            23 => Event::MessageCancelled { message },
            24 => Event::MessageDeadLettered {
                message,
                reason: text.clone(),
            },
            25 => Event::SessionOpened {
                connection: ConnectionId::from_bytes([9; 10]),
                agent: text.clone(),
                directory: text.clone(),
                model: None,
                title: Some(text.clone()),
            },
            26 => Event::AgentSessionRequested {
                marker: text.clone(),
            },
            27 => Event::MessageRequeued { message, again: M3 },
            28 => verdict(Verdict::Wait),
            29 => verdict(Verdict::Resend),
            30 => verdict(Verdict::GiveUp),
            31 => verdict(Verdict::Arrived),
            32 => forked(),
            33 => Event::AgentForkRefused {
                reason: text.clone(),
            },
            34 => Event::ContextAdded { message },
            35 => Event::AgentSessionLost {
                agent_session: text.clone(),
            },
            36 => Event::OutputOrdered {
                message,
                run,
                items: vec!["q".to_owned(), "p".to_owned()],
            },
            _ => Event::AgentSessionBound {
                agent_session: text.clone(),
            },
        }
    })
}

/// Any events after the two messages were queued: one is queued once.
fn any_events() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(any_event(), 0..60).prop_map(|mut events| {
        events.splice(0..0, [queued(M1), queued(M2)]);
        events
    })
}

/// Whether a snapshot at every cut and the tail after it give what the whole log gives.
fn every_cut_gives_the_whole<P>(events: &[Recorded])
where
    P: Projection + PartialEq + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let whole: P = fold(events);
    let mut state = P::default();
    for cut in 0..=events.len() {
        let mut resumed: P = derived::decode(&derived::encode(&state)).expect("it reads back");
        for recorded in &events[cut..] {
            resumed.apply(recorded);
        }
        assert_eq!(resumed, whole, "cut at {cut}");
        if let Some(recorded) = events.get(cut) {
            state.apply(recorded);
        }
    }
}

proptest! {
    #[test]
    fn a_snapshot_and_the_tail_are_the_whole(events in any_events()) {
        let events = given(events);
        every_cut_gives_the_whole::<Session>(&events);
        every_cut_gives_the_whole::<Transcript>(&events);
        every_cut_gives_the_whole::<Pending>(&events);
    }

    #[test]
    fn every_front_of_any_session_can_be_cut(events in any_events()) {
        every_front_can_be_cut(session(7), events);
    }

    #[test]
    fn what_is_pending_is_what_the_queues_say(
        first in any_events(),
        second in any_events(),
    ) {
        let mut pending = Pending::default();
        let mut sessions = [Session::default(), Session::default()];
        let both = first.into_iter().map(|e| (0, e)).chain(second.into_iter().map(|e| (1, e)));
        for (number, (index, event)) in (1..).zip(both) {
            let recorded = recorded(session(u8::from(index == 1)), number, event);
            pending.apply(&recorded);
            sessions[index].apply(&recorded);
            for (name, state) in (0_u8..).zip(&sessions) {
                let StreamId::Session(id) = session(name) else { unreachable!() };
                let open: Vec<MessageId> = state.queue.open().map(|message| message.id).collect();
                let known = pending.sessions.get(&id);
                prop_assert_eq!(known.map_or(0, BTreeSet::len), open.len());
                prop_assert!(open.iter().all(|id| known.is_some_and(|known| known.contains(id))));
                let dead: BTreeSet<MessageId> = state.queue.dead_letters().map(|(m, _)| m.id).collect();
                prop_assert_eq!(pending.dead_letters.get(&id).cloned().unwrap_or_default(), dead);
            }
        }
    }

    #[test]
    fn what_is_settled_stays_settled_and_is_no_head(events in any_events()) {
        let mut state = Session::default();
        let mut settled: Vec<(MessageId, MessageState)> = Vec::new();
        for recorded in given(events) {
            state.apply(&recorded);
            for (id, was) in &settled {
                prop_assert_eq!(state.queue.get(*id).map(|message| message.state), Some(*was));
            }
            let messages = state.queue.messages().iter();
            settled = messages.filter(|m| m.state.is_settled()).map(|m| (m.id, m.state)).collect();
            let oldest = state.queue.messages().iter().find(|m| !m.state.is_settled());
            prop_assert_eq!(state.queue.head(), oldest);
        }
    }
}
