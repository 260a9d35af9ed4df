//! A message that steers: stored beside the turn that the agent works on, and taken up by the same run.

use super::*;
use crate::command::Command;

const M3: MessageId = MessageId::from_bytes([3; 10]);

fn steer(message: MessageId) -> Command {
    let (key, text) = (None, text_of(message));
    Command::Steer { message, key, text }
}

fn steered(message: MessageId) -> Event {
    Event::MessageSteered { message }
}

/// The first message is worked on, and an answer to it was begun.
fn at_work() -> World {
    let mut world = given(running());
    world.linked().then([], [look()]);
    world.looked(busy([first([])])).nothing();
    world
}

/// The same, and the second was stored beside it.
fn stored_beside() -> World {
    let mut world = at_work();
    world
        .command(steer(M2))
        .then([queued(M2), steered(M2), sending(M2, 1)], [store(M2)]);
    world.when(Input::Stored(Ok(()))).then([accepted(M2)], []);
    world
}

fn first(items: impl IntoIterator<Item = AnswerItem>) -> ReportedAnswer {
    with(answer_to(&a1(), "x1"), items)
}

fn first_ended(finish: &str) -> ReportedAnswer {
    with(finished("x1", finish), [])
}

fn next(items: impl IntoIterator<Item = AnswerItem>) -> ReportedAnswer {
    with(answer_to(&a2(), "y1"), items)
}

fn next_ended() -> ReportedAnswer {
    let answer = Answer {
        parent: a2(),
        ..finished("y1", "stop")
    };
    with(answer, [whole("p", "oh hi")])
}

/// What the agent says of the first message once there is a newer one.
fn older(report: Report) -> Report {
    Report {
        newest: false,
        ..report
    }
}

fn went_on(finish: &str) -> Report {
    Report {
        went_on: true,
        ..older(busy([first_ended(finish)]))
    }
}

fn ended(finish: &str) -> Event {
    Event::TurnCompleted {
        message: M1,
        run: 1,
        finish: finish.to_owned(),
    }
}

#[test]
fn it_is_stored_beside_the_turn_and_taken_up_by_its_run() {
    let mut world = at_work();
    world.now = world.now.plus(second());
    // The agent is seen at work first: one that died is to be run again, with nothing newer in its way.
    world
        .command(steer(M2))
        .then([queued(M2), steered(M2)], [look()]);
    world
        .looked(busy([first([])]))
        .then([sending(M2, 1)], [store(M2)]);
    world.when(Input::Stored(Ok(()))).then([accepted(M2)], []);

    // What is said of the first still belongs to it.
    world.observed(tool("x1", "c", done("ok"))).then(
        [
            tool_started(1, "c"),
            tool_ended(1, "c", ToolOutcome::Completed, "ok"),
        ],
        [],
    );
    // What is said of the second does not.
    let begun = Observation::AnswerUpdated(answer_to(&a2(), "y1"));
    world.observed(begun).then([], [look()]);
    world.observed(part_opened("y1", "p")).nothing();
    world.observed(tool("y1", "d", runs())).nothing();
    world.observed(delta("y1", "p", "oh ")).nothing();

    // The rest of the first one's answer hangs on the second.
    world
        .looked(went_on("tool-calls"))
        .then([ended("tool-calls")], [look_for(M2)]);
    world
        .looked(busy([next([open_part("p")])]))
        .then([started(M2, 1)], [look_for(M2)]);
    world.looked(busy([next([open_part("p")])])).nothing();
    let _ = world.observed(delta("y1", "p", "hi"));
    let _ = world.observed(part_ended("y1", "p", "oh hi"));
    world.observed(Observation::Idle).then([], [look_for(M2)]);
    world
        .looked(idle([next_ended()]))
        .then([completed(M2, 1)], []);

    let transcript = world.transcript();
    let said = |message| transcript.turn_of(message).map(Turn::text);
    assert_eq!(said(M1).as_deref(), Some(""));
    assert_eq!(said(M2).as_deref(), Some("oh hi"));
    let calls = |message| {
        transcript
            .turn_of(message)
            .map(|turn| turn.run().calls().count())
    };
    assert_eq!((calls(M1), calls(M2)), (Some(1), Some(0)));
}

#[test]
fn one_that_comes_too_late_for_the_run_is_started_like_one_that_was_queued() {
    let mut world = stored_beside();
    world.observed(Observation::Idle).then([], [look()]);
    world
        .looked(older(idle([first_ended("stop")])))
        .then([completed(M1, 1)], [look_for(M2)]);
    world.looked(idle([])).then([requested(M2, 1)], [start(M2)]);
}

#[test]
fn one_that_was_answered_before_anybody_looked_is_not_started() {
    let mut world = stored_beside();
    world.restart();
    world.linked().then([], [look()]);
    let report = Report {
        went_on: true,
        ..older(idle([first_ended("stop")]))
    };
    world
        .looked(report)
        .then([completed(M1, 1)], [look_for(M2)]);
    let then = world.looked(idle([next_ended()]));
    then.then([started(M2, 1)], [look_for(M2)]);
    assert_eq!(then.provenances(), [Provenance::Backfilled]);
    let said = Event::OutputAppended {
        message: M2,
        run: 1,
        part: "p".to_owned(),
        kind: OutputKind::Text,
        placement: Placement::End,
        text: "oh hi".to_owned(),
    };
    world
        .looked(idle([next_ended()]))
        .then([said, completed(M2, 1)], []);
}

#[test]
fn an_answer_that_ended_by_itself_is_complete_while_the_agent_goes_on() {
    let mut world = stored_beside();
    let begun = Observation::AnswerUpdated(answer_to(&a2(), "y1"));
    world.observed(begun).then([], [look()]);
    world
        .looked(went_on("stop"))
        .then([completed(M1, 1)], [look_for(M2)]);
}

#[test]
fn where_nothing_runs_it_is_queued() {
    let mut world = given([opened(), bind_requested(), bound()]);
    world.linked().nothing();
    world
        .command(steer(M1))
        .then([queued(M1), steered(M1), sending(M1, 1)], [store(M1)]);
    world
        .when(Input::Stored(Ok(())))
        .then([accepted(M1), requested(M1, 1)], [start(M1)]);
}

#[test]
fn it_waits_behind_what_was_queued_before_it() {
    let mut world = at_work();
    let (message, key, text) = (M2, None, text_of(M2));
    world
        .command(Command::Queue { message, key, text })
        .then([queued(M2)], []);
    world.command(steer(M3)).then([queued(M3), steered(M3)], []);
}

#[test]
fn it_waits_until_the_agent_has_begun_to_answer() {
    // Before that it would answer the newer one alone.
    let mut world = given_linked(running());
    world.command(steer(M2)).then([queued(M2), steered(M2)], []);
    let begun = Observation::AnswerUpdated(answer_to(&a1(), "x1"));
    world.observed(begun).then([sending(M2, 1)], [store(M2)]);
}

#[test]
fn it_waits_where_the_turn_is_to_be_ended() {
    let mut world = at_work();
    world
        .command(Command::Abort)
        .then([Event::TurnAbortAsked { message: M1 }], [abort()]);
    world.command(steer(M2)).then([queued(M2), steered(M2)], []);
}

#[test]
fn what_does_not_get_through_at_once_waits_until_it_is_the_head() {
    let mut world = at_work();
    let _ = world.command(steer(M2));
    let unknown = Event::DeliveryUnknown {
        message: M2,
        attempt: 1,
        reason: "lost".to_owned(),
    };
    world
        .when(Input::Stored(Err(super::unknown("lost"))))
        .then([unknown], [Effect::Suspect]);
    world.observed(Observation::Idle).then([], [look()]);
    world
        .looked(older(idle([first_ended("stop")])))
        .then([completed(M1, 1)], [look_for(M2)]);
    // It had arrived, and the run had read it.
    let resolved = Event::DeliveryResolved {
        message: M2,
        attempt: 1,
        resolution: Resolution::Stored,
        evidence: "the agent's history holds it".to_owned(),
    };
    world
        .looked(idle([next_ended()]))
        .then([resolved], [look_for(M2)]);
    world
        .looked(idle([next_ended()]))
        .then([started(M2, 1)], [look_for(M2)]);
}

#[test]
fn the_turn_before_it_is_not_run_again_once_it_may_be_there() {
    let mut world = stored_beside();
    world.linked().then([], [look()]);
    world.looked(older(idle([first([])]))).nothing();
    world.woken().then([], [look()]);
    let newer = "a newer message is in the agent's session";
    world.looked(older(idle([first([])]))).then(
        [
            interrupted(1, &["x1"]),
            rerun_decided(1, Rerun::GiveUp, newer),
            failed(
                1,
                &format!("the agent died in it, and it is not run again: {newer}"),
            ),
        ],
        [look_for(M2)],
    );
    world.looked(idle([])).then([requested(M2, 1)], [start(M2)]);
}

#[test]
fn a_session_that_turns_out_to_be_lost_takes_the_turn_with_it() {
    let mut world = at_work();
    let _ = world.command(steer(M2));
    let now = world.now;
    let lost = "the agent lost the session";
    world.when(Input::Stored(Err(no_such_session()))).then(
        [
            Event::AgentSessionLost {
                agent_session: "ses".to_owned(),
            },
            Event::TurnInterrupted {
                message: M1,
                run: 1,
                answers: Vec::new(),
                evidence: lost.to_owned(),
            },
            Event::DeliveryRejected {
                message: M2,
                attempt: 1,
                refusal: Refusal::NeverSent,
                reason: "no such session".to_owned(),
            },
            rerun_decided(1, Rerun::Run, "no tool had begun"),
            Event::DeliveryResolved {
                message: M1,
                attempt: 1,
                resolution: Resolution::Absent,
                evidence: lost.to_owned(),
            },
            Event::RetryScheduled {
                message: M1,
                attempt: 2,
                at: now,
            },
            sending(M1, 2),
            bind_requested(),
        ],
        [Effect::CreateSession(spec())],
    );
}

#[test]
fn what_is_asked_after_it_was_read_is_not_taken_for_the_turn_before() {
    let mut world = stored_beside();
    let of_a_call = Permission {
        call: Some("d".to_owned()),
        ..permission("q")
    };
    // Nobody knows whose call that is: a look tells.
    world
        .observed(Observation::PermissionAsked(of_a_call.clone()))
        .then([], [look()]);
    let report = Report {
        permissions: vec![of_a_call.clone()],
        ..went_on("tool-calls")
    };
    world
        .looked(report)
        .then([ended("tool-calls")], [look_for(M2)]);
    let report = || Report {
        permissions: vec![of_a_call.clone()],
        ..busy([next([AnswerItem::Tool(call("d", runs()))])])
    };
    world
        .looked(report())
        .then([started(M2, 1)], [look_for(M2)]);
    let _ = world.looked(report());
    assert!(world.state.questions_open());
    assert_eq!(world.state.head().map(|(message, _)| message.id), Some(M2));
}
