//! How turns end: by the agent's word, on request, by a bound; and that each of them does.

use super::*;
use crate::command::Command;
use crate::policy::ConnectionPolicy;

fn abort_asked() -> Event {
    Event::TurnAbortAsked { message: M1 }
}

fn agent_error(name: &str) -> Event {
    Event::AgentErrorReported {
        message: M1,
        name: name.to_owned(),
        reason: "in its words".to_owned(),
    }
}

fn error(name: &str) -> Observation {
    Observation::Error {
        name: name.to_owned(),
        reason: "in its words".to_owned(),
    }
}

#[test]
fn no_frame_ends_a_turn_and_a_look_does() {
    let mut world = given_linked(running());
    world
        .observed(Observation::AnswerUpdated(finished("x1", "stop")))
        .nothing();
    world.observed(Observation::Idle).then([], [look()]);
    // It says so again while the look is under way: there will be another one.
    world.observed(Observation::Idle).nothing();
    world
        .looked(busy([with(finished("x1", "tool-calls"), [])]))
        .then([], [look()]);
    world
        .looked(idle([with(finished("x1", "stop"), [])]))
        .then([completed(M1, 1)], []);
}

#[test]
fn the_last_of_several_answers_counts() {
    let mut world = given_linked(running());
    let _ = world.observed(Observation::Idle);
    world
        .looked(idle([
            with(
                finished("x1", "tool-calls"),
                [AnswerItem::Tool(call("c", done("ok")))],
            ),
            with(finished("x2", "stop"), [whole("p", "so it is")]),
        ]))
        .then(
            [
                tool_started(1, "c"),
                tool_ended(1, "c", ToolOutcome::Completed, "ok"),
                output(1, "p", Placement::End, "so it is"),
                completed(M1, 1),
            ],
            [],
        );
}

#[test]
fn a_silent_agent_is_looked_at_now_and_then() {
    let mut world = given_linked(running());
    let every = world.policy.look_every;
    for n in 1..4 {
        assert_eq!(world.wake_at, Some(T0.plus(every * n)));
        world.woken().then([], [look()]);
        world.looked(busy([])).nothing();
    }
}

#[test]
fn an_error_of_the_agent_fails_the_turn_once_its_answer_says_so() {
    let mut world = given_linked(running());
    world
        .observed(error("APIError"))
        .then([agent_error("APIError")], []);
    world.observed(Observation::Idle).then([], [look()]);
    world
        .looked(idle([with(broken("x1", "APIError", false), [])]))
        .then([failed(1, "APIError: in its words")], []);
}

#[test]
fn an_error_without_an_answer_fails_a_turn_that_never_began() {
    let mut events = held();
    events.push(requested(M1, 1));
    let mut world = given(events);
    let _ = world.linked();
    let _ = world.looked(idle([]));
    world
        .observed(error("UnknownError"))
        .then([agent_error("UnknownError")], []);
    world.woken().then([], [look()]);
    world
        .looked(idle([]))
        .then([failed(1, "UnknownError: in its words")], []);
}

#[test]
fn an_agent_that_refuses_to_begin_fails_the_turn() {
    let mut world = given([opened(), bind_requested(), bound(), queued(M1)]);
    let _ = world.linked();
    let _ = world.when(Input::Stored(Ok(())));
    let reason = "no such model".to_owned();
    world
        .when(Input::Started(Err(CallError::RefusedForGood { reason })))
        .then([], [Effect::Suspect]);
    world.woken().then([], [look()]);
    world.looked(idle([])).nothing();
    world.woken().then([], [look()]);
    world
        .looked(idle([]))
        .then([failed(1, "the agent refused to begin: no such model")], []);
}

#[test]
fn an_answer_that_ended_without_a_word_is_a_failure() {
    let mut world = given_linked(running());
    let _ = world.observed(Observation::Idle);
    let answer = Answer {
        finish: None,
        ..finished("x1", "")
    };
    world.looked(idle([with(answer, [])])).then(
        [failed(
            1,
            "the agent ended its answer without an answer or an error",
        )],
        [],
    );
}

// ---- on request

#[test]
fn an_abort_ends_at_once_what_was_not_begun() {
    let mut world = given([opened(), queued(M1)]);
    world
        .command(Command::Abort)
        .then([abort_asked(), aborted(0)], []);

    let mut world = given([
        opened(),
        bind_requested(),
        bound(),
        queued(M1),
        sending(M1, 1),
    ]);
    world.record([rejected(1, Refusal::NeverSent, "refused")]);
    world
        .command(Command::Abort)
        .then([abort_asked(), aborted(0)], []);

    let mut world = given(held());
    world
        .command(Command::Abort)
        .then([abort_asked(), aborted(0)], []);
}

#[test]
fn an_abort_names_the_run_that_had_been_requested() {
    let mut events = held();
    events.push(requested(M1, 1));
    events.push(rejected(1, Refusal::NeverSent, "forgotten, and refused"));
    let mut world = given(events);
    world
        .command(Command::Abort)
        .then([abort_asked(), aborted(1)], []);
}

#[test]
fn an_abort_of_a_message_on_its_way_waits_for_its_outcome() {
    let mut world = given([opened(), bind_requested(), bound(), queued(M1)]);
    let _ = world.linked();
    world.command(Command::Abort).then([abort_asked()], []);
    world
        .when(Input::Stored(Ok(())))
        .then([accepted(M1), aborted(0)], []);
}

#[test]
fn an_abort_of_a_running_turn_ends_when_the_agent_says_so() {
    let mut world = given_linked(running());
    world
        .command(Command::Abort)
        .then([abort_asked()], [abort()]);
    world.when(Input::AbortSent(Ok(()))).nothing();
    world.woken().then([], [look()]);
    world
        .looked(idle([with(broken("x1", "MessageAbortedError", true), [])]))
        .then([aborted(1)], []);
}

#[test]
fn an_abort_that_came_before_the_agent_began_is_sent_again() {
    let mut world = given_linked(running());
    let _ = world.command(Command::Abort);
    world.when(Input::AbortSent(Ok(()))).nothing();
    world.woken().then([], [look()]);
    world.looked(busy([])).then([], [abort()]);
}

#[test]
fn an_abort_during_the_agents_wait_for_its_model_is_an_abort() {
    let mut world = given_linked(running());
    let _ = world.command(Command::Abort);
    let _ = world.observed(Observation::Idle);
    let answer = Answer {
        finish: None,
        ..finished("x1", "")
    };
    world
        .looked(idle([with(answer, [])]))
        .then([aborted(1)], []);
}

#[test]
fn a_turn_that_was_finished_before_the_abort_is_completed() {
    let mut world = given_linked(running());
    let _ = world.command(Command::Abort);
    let _ = world.observed(Observation::Idle);
    world
        .looked(idle([with(finished("x1", "stop"), [])]))
        .then([completed(M1, 1)], []);
}

#[test]
fn an_abort_that_the_agent_never_confirms_ends_after_a_time() {
    let mut world = given_linked(running());
    let _ = world.command(Command::Abort);
    let _ = world.observed(part_opened("x1", "p"));
    let patience = world.policy.abort_patience;
    world
        .after(patience.saturating_sub(Duration::from_millis(1)))
        .then([], [look()]);
    let _ = world.observed(delta("x1", "p", "and on"));
    // What it said until then is kept.
    world
        .after(Duration::from_millis(1))
        .then([output(1, "p", Placement::End, "and on"), aborted(1)], []);
}

/// A turn that was ended without the agent's word, and the next message; the agent is looked at first.
fn ended_unseen() -> World {
    let mut world = given_linked(running());
    world.record([queued(M2)]);
    let _ = world.command(Command::Abort);
    let patience = world.policy.abort_patience;
    let _ = world.after(patience.saturating_sub(Duration::from_millis(1)));
    world.looked(busy([])).then([], [abort()]);
    world
        .after(Duration::from_millis(1))
        .then([aborted(1)], [look()]);
    world
}

#[test]
fn nothing_is_sent_to_an_agent_that_still_works_on_what_was_ended() {
    let mut world = ended_unseen();
    world.looked(busy([])).nothing();
    let every = world.policy.look_every;
    assert_eq!(world.wake_at, Some(world.now.plus(every)));
    world.woken().then([], [look()]);
    world.looked(busy([])).nothing();
    // Its word is not waited for if it comes.
    world.observed(Observation::Idle).then([], [look()]);
    world.looked(idle([])).then([sending(M2, 1)], [store(M2)]);
    // It was seen at rest: it is not looked at again.
    world
        .when(Input::Stored(Err(never_sent("refused"))))
        .events
        .clear();
    world.woken().then([sending(M2, 2)], [store(M2)]);
}

#[test]
fn a_restart_does_not_forget_that_an_agent_may_still_be_at_work() {
    let mut world = ended_unseen();
    world.restart();
    world.linked().then([], [look()]);
    world.looked(idle([])).then([sending(M2, 1)], [store(M2)]);
}

#[test]
fn an_agent_that_never_rests_is_not_waited_for_for_ever() {
    let dead_lettered = |reason: &str| Event::MessageDeadLettered {
        message: M2,
        reason: reason.to_owned(),
    };
    let mut world = ended_unseen();
    world.looked(busy([])).nothing();
    world.now = world.now.plus(world.policy.turn_max);
    world.when(Input::Woke).then(
        [dead_lettered(
            "the agent does not end its work on an earlier message",
        )],
        [],
    );

    let mut world = ended_unseen();
    for _ in 1..world.policy.looks_max {
        let then = world.when(Input::Looked(Err(unknown("HTTP 500"))));
        then.then([], [Effect::Suspect]);
        world.woken().then([], [look()]);
    }
    world.when(Input::Looked(Err(unknown("HTTP 500")))).then(
        [dead_lettered(
            "whether the agent works on an earlier message cannot be found out: HTTP 500",
        )],
        [],
    );
}

/// Calls fail at once where a server has died whose stream is half open, and the connection stands meanwhile.
#[test]
fn looks_go_on_failing_for_longer_than_a_dead_link_goes_unnoticed() {
    let mut world = ended_unseen();
    let begun = world.now;
    for _ in 1..world.policy.looks_max {
        let then = world.when(Input::Looked(Err(unknown("connection reset"))));
        then.then([], [Effect::Suspect]);
        world.woken().then([], [look()]);
    }
    let unnoticed = ConnectionPolicy::default().silence_answering_max;
    assert!(world.now.since(begun) > unnoticed);
}

#[test]
fn a_session_that_was_lost_holds_no_work() {
    let mut world = ended_unseen();
    let agent_session = "ses".to_owned();
    world.when(Input::Looked(Err(no_such_session()))).then(
        [
            Event::AgentSessionLost { agent_session },
            sending(M2, 1),
            bind_requested(),
        ],
        [Effect::CreateSession(spec())],
    );
}

#[test]
fn an_abort_is_asked_again_after_a_restart() {
    let mut world = given_linked(running());
    let _ = world.command(Command::Abort);
    world.restart();
    world.linked().then([], [abort(), look()]);
}

#[test]
fn somebody_elses_abort_is_a_failure() {
    let mut world = given_linked(running());
    let _ = world.observed(Observation::Idle);
    world
        .looked(idle([with(broken("x1", "MessageAbortedError", true), [])]))
        .then(
            [failed(
                1,
                "aborted at the agent, by somebody else or by its restart",
            )],
            [],
        );
}

// ---- by a bound

#[test]
fn a_silent_turn_is_ended() {
    let mut world = given_linked(running());
    let reason = "nothing came from the agent for 300s";
    world
        .after(world.policy.silence_max)
        .then([stalled(reason)], [abort()]);
    world.when(Input::AbortSent(Ok(()))).nothing();
    world.woken().then([], [look()]);
    world
        .looked(idle([with(broken("x1", "MessageAbortedError", true), [])]))
        .then([failed(1, reason)], []);
}

/// A turn that may be run again once after a stall, and stalls.
fn stalls_once(world: &mut World) -> &'static str {
    world.adopt(SessionPolicy {
        stalls_rerun_max: 1,
        ..SessionPolicy::default()
    });
    world.linked().then([], [look()]);
    world.looked(busy([])).nothing();
    let reason = "nothing came from the agent for 300s";
    world
        .after(world.policy.silence_max)
        .then([stalled(reason)], [abort()]);
    reason
}

fn ended_after_a_stall() -> Event {
    Event::TurnInterrupted {
        message: M1,
        run: 1,
        answers: vec!["x1".to_owned()],
        evidence: "it was ended since it stalled".to_owned(),
    }
}

#[test]
fn a_turn_that_stalled_is_run_again_as_often_as_the_policy_says() {
    let mut world = given(running());
    let reason = stalls_once(&mut world);
    let why = format!("no tool had begun; it stalled: {reason}");
    let aborted = |id| with(broken(id, "MessageAbortedError", true), []);
    world.when(Input::AbortSent(Ok(()))).nothing();
    world.woken().then([], [look()]);
    world.looked(idle([aborted("x1")])).then(
        [
            ended_after_a_stall(),
            rerun_decided(1, Rerun::Run, &why),
            requested(M1, 2),
        ],
        [start(M1)],
    );
    world.when(Input::Started(Ok(()))).nothing();
    let begun = Observation::AnswerUpdated(answer_to(&a1(), "x2"));
    world.observed(begun).then([started(M1, 2)], []);
    let again = Event::TurnStalled {
        message: M1,
        run: 2,
        reason: reason.to_owned(),
    };
    world
        .after(world.policy.silence_max)
        .then([again], [abort()]);
    world.observed(Observation::Idle).then([], [look()]);
    world
        .looked(idle([aborted("x1"), aborted("x2")]))
        .then([failed(2, reason)], []);
}

#[test]
fn a_turn_that_stalled_with_a_tool_begun_waits_for_a_person() {
    let mut world = given(running());
    world.record([tool_started(1, "c")]);
    let reason = stalls_once(&mut world);
    let why = format!("tools had begun and may have done work: bash; it stalled: {reason}");
    world.observed(Observation::Idle).then([], [look()]);
    let ended = with(
        broken("x1", "MessageAbortedError", true),
        [AnswerItem::Tool(call("c", done("ok")))],
    );
    // First what it did until then.
    world
        .looked(idle([ended.clone()]))
        .then([tool_ended(1, "c", ToolOutcome::Completed, "ok")], [look()]);
    world.looked(idle([ended])).then(
        [ended_after_a_stall(), rerun_decided(1, Rerun::Wait, &why)],
        [],
    );
}

#[test]
fn a_turn_that_stalled_is_not_run_again_beside_itself() {
    // Nobody saw the agent let go of it, so it may still be at work.
    let mut world = given(running());
    let reason = stalls_once(&mut world);
    world
        .after(world.policy.abort_patience)
        .then([failed(1, reason)], []);
}

#[test]
fn a_turn_that_takes_too_long_is_ended() {
    let mut world = given_linked(running());
    let long = world.policy.turn_max;
    world.now = T0.plus(long.saturating_sub(second()));
    let _ = world.observed(Observation::Busy);
    world
        .after(second())
        .then([stalled("the turn took longer than 3600s")], [abort()]);
}

#[test]
fn the_time_of_a_turn_counts_anew_with_each_run() {
    let mut events = running();
    events.extend([
        interrupted(1, &["x1"]),
        rerun_decided(1, Rerun::Wait, "tools had begun"),
    ]);
    let mut world = given(events);
    let _ = world.linked();
    world.now = T0.plus(world.policy.turn_max * 2);
    let _ = world.command(Command::Rerun { run: true });
    let _ = world.looked(idle([]));
    world.when(Input::Started(Ok(()))).nothing();
    let turn = world.state.turn.as_ref().expect("it is there");
    assert_eq!((turn.runs.len(), turn.stalled.as_deref()), (2, None));
}

#[test]
fn an_agent_that_would_wait_too_long_for_its_model_is_ended() {
    let mut world = given_linked(running());
    let next = Some(T0.plus(Duration::from_secs(24 * 3600)));
    let retrying = || Observation::Retrying {
        attempt: 2,
        reason: "HTTP 429".to_owned(),
        next,
    };
    let retried = || Event::AgentRetried {
        message: M1,
        attempt: 2,
        reason: "HTTP 429".to_owned(),
        next,
    };
    let reason = "the agent would wait for more than 300s before it asks its model again: HTTP 429";
    world
        .observed(retrying())
        .then([retried(), stalled(reason)], [abort()]);
    // Said again, it is not news.
    world.observed(retrying()).nothing();
    world.observed(Observation::Idle).then([], [look()]);
    world.looked(idle([])).then([failed(1, reason)], []);
}

#[test]
fn a_try_of_the_agents_is_recorded_once_however_often_it_is_seen() {
    let mut world = given_linked(running());
    let next = Some(T0.plus(second()));
    let retrying = |attempt| Observation::Retrying {
        attempt,
        reason: "HTTP 500".to_owned(),
        next,
    };
    let looked = |attempt| {
        let reason = "HTTP 500".to_owned();
        let activity = Activity::Retrying {
            attempt,
            reason,
            next,
        };
        report(activity, [])
    };
    let retried = |attempt| Event::AgentRetried {
        message: M1,
        attempt,
        reason: "HTTP 500".to_owned(),
        next,
    };
    world.observed(retrying(1)).then([retried(1)], []);
    world.observed(retrying(1)).nothing();
    let _ = world.observed(Observation::Idle);
    world.looked(looked(1)).nothing();
    let _ = world.observed(Observation::Idle);
    world.looked(looked(2)).then([retried(2)], []);
    world.restart();
    let _ = world.linked();
    world.looked(looked(2)).nothing();
}

#[test]
fn the_first_try_for_another_call_of_the_model_is_another_one() {
    let mut world = given_linked(running());
    for n in 1..3 {
        let next = Some(T0.plus(second() * n));
        let reason = "HTTP 500".to_owned();
        let then = world.observed(Observation::Retrying {
            attempt: 1,
            reason,
            next,
        });
        assert_eq!(then.events.len(), 1);
    }
}

#[test]
fn an_agent_that_boots_is_not_silent() {
    let mut world = given([held(), vec![requested(M1, 1)]].concat());
    let policy = SessionPolicy {
        silence_max: second(),
        request_grace: second() * 10,
        ..SessionPolicy::default()
    };
    world.machine = machine(&policy, world.now);
    let _ = world.linked();
    let _ = world.looked(idle([]));
    let then = world.after(second() * 5);
    assert!(then.events.is_empty(), "{then:#?}");
    // It is found at work, and may be silent from then on.
    let _ = world.looked(busy([with(answer_to(&a1(), "x1"), [])]));
    assert_eq!(world.state_of(M1), MessageState::Running);
    let _ = world.after(second().saturating_sub(Duration::from_millis(1)));
    assert!(
        world
            .state
            .turn
            .as_ref()
            .is_some_and(|turn| turn.stalled.is_none())
    );
    let _ = world.after(Duration::from_millis(1));
    let stalled = world.state.turn.and_then(|turn| turn.stalled);
    assert_eq!(
        stalled.as_deref(),
        Some("nothing came from the agent for 1s")
    );
}

#[test]
fn a_wait_that_the_agent_announced_is_no_silence() {
    let mut world = given_linked(running());
    let wait = world.policy.agent_retry_max;
    let next = Some(T0.plus(wait));
    let _ = world.observed(Observation::Retrying {
        attempt: 2,
        reason: "HTTP 429".to_owned(),
        next,
    });
    assert!(
        !world
            .after(world.policy.silence_max)
            .events
            .iter()
            .any(|new| matches!(new.event, Event::TurnStalled { .. }))
    );
}

// ---- by the loss of the connection

#[test]
fn what_cannot_be_reached_for_too_long_is_given_up() {
    let unreached = "since the agent cannot be reached: connection refused";
    let ended = format!("how it ended cannot be found out, {unreached}");
    let sending_events = vec![
        opened(),
        bind_requested(),
        bound(),
        queued(M1),
        sending(M1, 1),
    ];
    let unknown_events = {
        let mut events = sending_events.clone();
        events.push(Event::DeliveryUnknown {
            message: M1,
            attempt: 1,
            reason: "lost".to_owned(),
        });
        events
    };
    for (events, end) in [
        (
            vec![opened(), queued(M1)],
            dead_lettered("the agent cannot be reached: connection refused"),
        ),
        (
            unknown_events,
            dead_lettered(&format!(
                "whether it arrived cannot be found out, {unreached}"
            )),
        ),
        (held(), failed(0, &ended)),
        (running(), failed(1, &ended)),
    ] {
        let mut world = given(events);
        world.unlinked(false).nothing();
        assert_eq!(world.wake_at, None);
        world.unlinked(true).nothing();
        // One probe is let through now and then: that is no connection yet.
        world.now = T0.plus(second());
        world.unlinked(false).nothing();
        world.unlinked(true).nothing();
        assert_eq!(
            world.wake_at,
            Some(T0.plus(world.policy.unreachable_patience))
        );
        world.woken().then([end], []);
    }
}

#[test]
fn the_patience_with_an_outage_counts_from_the_message_where_that_is_later() {
    let mut world = given([opened(), queued(M1)]);
    world.unlinked(true).nothing();
    let patience = world.policy.unreachable_patience;
    world.now = T0.plus(second());
    world.record([queued(M2)]);
    world.now = T0.plus(patience);
    world.when(Input::Woke).then(
        [dead_lettered(
            "the agent cannot be reached: connection refused",
        )],
        [],
    );
    assert_eq!(world.wake_at, Some(world.now.plus(second())));
    let _ = world.woken();
    assert_eq!(world.state_of(M2), MessageState::DeadLettered);
}

#[test]
fn a_connection_that_came_back_starts_the_patience_anew() {
    let mut world = given(running());
    world.unlinked(true).nothing();
    let _ = world.linked();
    let _ = world.looked(busy([]));
    world.now = T0.plus(second());
    world.unlinked(true).nothing();
    assert_eq!(
        world.wake_at,
        Some(world.now.plus(world.policy.unreachable_patience))
    );
}
