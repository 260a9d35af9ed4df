//! The agent knows nothing of its session any more: what it held is sent once more, into a new one.

use super::*;
use crate::command::Command;

const LOST: &str = "the agent lost the session";

fn lost() -> Event {
    Event::AgentSessionLost {
        agent_session: "ses".to_owned(),
    }
}

fn absent(attempt: u32, evidence: &str) -> Event {
    Event::DeliveryResolved {
        message: M1,
        attempt,
        resolution: Resolution::Absent,
        evidence: evidence.to_owned(),
    }
}

fn interrupted(run: u32) -> Event {
    Event::TurnInterrupted {
        message: M1,
        run,
        answers: Vec::new(),
        evidence: LOST.to_owned(),
    }
}

fn retry(world: &World, attempt: u32) -> Event {
    Event::RetryScheduled {
        message: M1,
        attempt,
        at: world.now,
    }
}

fn looked(world: &mut World) -> Then {
    world.when(Input::Looked(Err(no_such_session())))
}

/// It is sent into a new session, for this run.
#[track_caller]
fn is_sent_anew(world: &mut World, run: u32) {
    let session = Ok(Some("ses2".to_owned()));
    let mut delivery = delivery(M1);
    delivery.session.id = "ses2".to_owned();
    let bound = Event::AgentSessionBound {
        agent_session: "ses2".to_owned(),
    };
    world
        .when(Input::Bound(session))
        .then([bound], [Effect::Store(delivery.clone())]);
    let accepted = Event::DeliveryAccepted {
        message: M1,
        attempt: 2,
    };
    world
        .when(Input::Stored(Ok(())))
        .then([accepted, requested(M1, run)], [Effect::Start(delivery)]);
}

#[test]
fn a_look_says_so_of_a_message_that_may_have_arrived_or_was_held_or_requested() {
    let sent = || {
        vec![
            opened(),
            queued(M1),
            sending(M1, 1),
            bind_requested(),
            bound(),
        ]
    };
    let unknown = Event::DeliveryUnknown {
        message: M1,
        attempt: 1,
        reason: "lost".to_owned(),
    };
    let runs_again = [
        interrupted(1),
        rerun_decided(1, Rerun::Run, "no tool had begun"),
    ];
    for (said, follows, run) in [
        (vec![unknown], vec![], 1),
        (vec![accepted(M1)], vec![], 1),
        // It may have begun unseen.
        (vec![accepted(M1), requested(M1, 1)], runs_again.to_vec(), 2),
    ] {
        let mut world = given(sent());
        world.record(said);
        world.linked().then([], [look()]);
        let again = retry(&world, 2);
        let mut events = vec![lost()];
        events.extend(follows);
        events.extend([absent(1, LOST), again, sending(M1, 2), bind_requested()]);
        looked(&mut world).then(events, [Effect::CreateSession(spec())]);
        is_sent_anew(&mut world, run);
    }
}

#[test]
fn a_run_that_may_have_begun_unseen_is_not_asked_for_again_against_the_policy() {
    let policy = SessionPolicy {
        rerun: RerunPolicy::Never,
        ..SessionPolicy::default()
    };
    let reason = "the policy is never";
    let given_up = [
        rerun_decided(1, Rerun::GiveUp, reason),
        failed(
            1,
            &format!("the agent died in it, and it is not run again: {reason}"),
        ),
    ];
    let requested = || {
        let mut events = held();
        events.push(requested(M1, 1));
        let mut world = given(events);
        world.adopt(policy.clone());
        let _ = world.linked();
        world
    };
    let mut world = requested();
    let mut events = vec![lost(), interrupted(1)];
    events.extend(given_up.clone());
    looked(&mut world).then(events, []);

    // So it is where the session is there and the message is not.
    let mut world = requested();
    let mut events = vec![Event::TurnInterrupted {
        message: M1,
        run: 1,
        answers: Vec::new(),
        evidence: "the agent's history does not hold it any more".to_owned(),
    }];
    events.extend(given_up);
    world.looked(super::absent()).then(events, []);

    // What it holds, and has no answer to, is proved not to have begun: that is asked for again.
    let mut world = requested();
    world.looked(idle([])).nothing();
    let _ = world.woken();
    world
        .looked(idle([]))
        .then([super::requested(M1, 1)], [start(M1)]);
}

#[test]
fn a_look_says_so_of_a_run_which_then_is_over() {
    let mut world = given_linked(running());
    let _ = world.observed(Observation::Idle);
    let again = retry(&world, 2);
    looked(&mut world).then(
        [
            lost(),
            interrupted(1),
            rerun_decided(1, Rerun::Run, "no tool had begun"),
            absent(1, LOST),
            again,
            sending(M1, 2),
            bind_requested(),
        ],
        [Effect::CreateSession(spec())],
    );
    is_sent_anew(&mut world, 2);
}

#[test]
fn a_run_whose_tools_had_begun_waits_for_a_person() {
    let mut world = given_linked(running());
    let _ = world.observed(tool("x1", "c", runs()));
    let _ = world.observed(Observation::Idle);
    looked(&mut world).then(
        [
            lost(),
            interrupted(1),
            tool_ended(1, "c", ToolOutcome::Lost, ""),
            rerun_decided(
                1,
                Rerun::Wait,
                "tools had begun and may have done work: bash",
            ),
        ],
        [],
    );
    let again = retry(&world, 2);
    world.command(Command::Rerun { run: true }).then(
        [
            rerun_decided(1, Rerun::Run, "a person's word"),
            absent(1, LOST),
            again,
            sending(M1, 2),
            bind_requested(),
        ],
        [Effect::CreateSession(spec())],
    );
    is_sent_anew(&mut world, 2);
}

#[test]
fn what_was_to_be_ended_is_not_sent_again() {
    let mut world = given_linked(running());
    let _ = world.command(Command::Abort);
    world
        .when(Input::AbortSent(Err(no_such_session())))
        .nothing();
    world.woken().then([], [look()]);
    looked(&mut world).then([lost(), interrupted(1), aborted(1)], []);

    let mut events = held();
    let reason = "nothing came from the agent for 300s";
    events.extend([requested(M1, 1), stalled(reason)]);
    let mut world = given(events.clone());
    let _ = world.linked();
    looked(&mut world).then([lost(), interrupted(1), failed(1, reason)], []);

    // So it is where the session is there and the message is not.
    let mut world = given(events);
    let _ = world.linked();
    world.looked(super::absent()).then([failed(1, reason)], []);
}

#[test]
fn the_first_phase_says_so() {
    let mut world = given([opened(), bind_requested(), bound(), queued(M1)]);
    let _ = world.linked();
    let then = world.when(Input::Stored(Err(no_such_session())));
    let due = world.wake_at.expect("it is scheduled");
    let again = Event::RetryScheduled {
        message: M1,
        attempt: 2,
        at: due,
    };
    then.then(
        [
            lost(),
            rejected(1, Refusal::NeverSent, "no such session"),
            again,
        ],
        [],
    );
    world.woken().then(
        [sending(M1, 2), bind_requested()],
        [Effect::CreateSession(spec())],
    );
    is_sent_anew(&mut world, 1);
}

#[test]
fn the_second_phase_says_so_and_a_look_confirms_it() {
    let mut world = given([opened(), bind_requested(), bound(), queued(M1)]);
    let _ = world.linked();
    let _ = world.when(Input::Stored(Ok(())));
    world
        .when(Input::Started(Err(no_such_session())))
        .then([], [Effect::Suspect]);
    world.woken().then([], [look()]);
    let again = retry(&world, 2);
    looked(&mut world).then(
        [
            lost(),
            interrupted(1),
            rerun_decided(1, Rerun::Run, "no tool had begun"),
            absent(1, LOST),
            again,
            sending(M1, 2),
            bind_requested(),
        ],
        [Effect::CreateSession(spec())],
    );
    is_sent_anew(&mut world, 2);
}

#[test]
fn an_agent_that_loses_every_session_is_given_up() {
    let mut world = given([opened(), queued(M1)]);
    let _ = world.linked();
    for _ in 1..100 {
        if world.state_of(M1) == MessageState::DeadLettered {
            return;
        }
        let _ = world.when(Input::Bound(Ok(Some("ses".to_owned()))));
        let _ = world.when(Input::Stored(Err(no_such_session())));
        if world.wake_at.is_some() {
            let _ = world.woken();
        }
    }
    panic!("it never ends: {:#?}", world.log);
}
