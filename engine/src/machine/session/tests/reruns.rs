//! The agent dies in a run: how that shows, and what becomes of the turn.

use super::*;
use crate::command::Command;

const NO_TOOL: &str = "no tool had begun";
const TOOLS: &str = "tools had begun and may have done work: bash";

/// What a dead run left at the agent.
fn dead() -> ReportedAnswer {
    with(answer_to(&a1(), "x1"), [open_part("p")])
}

fn dead_with_tool() -> ReportedAnswer {
    with(
        answer_to(&a1(), "x1"),
        [AnswerItem::Tool(call("c", runs()))],
    )
}

/// A turn that has said something, and whose agent was idle when it was looked at once.
fn once_idle() -> World {
    let mut world = given_linked(running());
    let _ = world.observed(part_opened("x1", "p"));
    let _ = world.observed(delta("x1", "p", "half"));
    let _ = world.unlinked(false);
    world.linked().then([], [look()]);
    world.looked(idle([dead()])).nothing();
    assert_eq!(
        world.wake_at,
        Some(world.now.plus(world.policy.second_look_after))
    );
    world.woken().then([], [look()]);
    world
}

/// The same with a tool that had begun.
fn once_idle_with_tool() -> World {
    let mut world = given_linked(running());
    let _ = world.observed(tool("x1", "c", runs()));
    let _ = world.linked();
    world.looked(idle([dead_with_tool()])).nothing();
    world.woken().then([], [look()]);
    world
}

#[test]
fn a_run_that_died_is_run_again_where_no_tool_had_begun() {
    let mut world = once_idle();
    world.looked(idle([dead()])).then(
        [
            interrupted(1, &["x1"]),
            rerun_decided(1, Rerun::Run, NO_TOOL),
            requested(M1, 2),
        ],
        [start(M1)],
    );
    world.when(Input::Started(Ok(()))).nothing();
    // The answer that the first run left is not taken for one of the second.
    world
        .observed(Observation::AnswerUpdated(answer_to(&a1(), "x1")))
        .nothing();
    world.observed(delta("x1", "p", "late")).nothing();
    world.observed(part_ended("x1", "p", "half late")).nothing();
    world.woken().then([], [look()]);
    world.looked(idle([dead()])).nothing();
    assert_eq!(world.state_of(M1), MessageState::Requested);

    world
        .observed(Observation::AnswerUpdated(answer_to(&a1(), "x2")))
        .then([started(M1, 2)], []);
    let _ = world.observed(Observation::Idle);
    world
        .looked(idle([
            dead(),
            with(finished("x2", "stop"), [whole("q", "whole")]),
        ]))
        .then(
            [output(2, "q", Placement::End, "whole"), completed(M1, 2)],
            [],
        );
    // What the first run said is kept, apart.
    let transcript = world.transcript();
    let texts: Vec<String> = transcript.turns[0]
        .runs
        .iter()
        .map(recount_projections::turn::Run::text)
        .collect();
    assert_eq!(texts, ["half", "whole"]);
}

#[test]
fn a_sign_of_life_between_two_looks_begins_the_count_anew() {
    let mut world = given_linked(running());
    let _ = world.observed(Observation::Idle);
    world.looked(idle([dead()])).nothing();
    let _ = world.observed(tool("x1", "c", runs()));
    world.woken().then([], [look()]);
    world.looked(idle([dead_with_tool()])).nothing();
    assert_eq!(world.state_of(M1), MessageState::Running);
}

#[test]
fn what_a_look_brings_to_light_is_not_dead_yet() {
    let mut world = once_idle_with_tool();
    let ended = with(
        answer_to(&a1(), "x1"),
        [AnswerItem::Tool(call("c", done("ok")))],
    );
    world
        .looked(idle([ended.clone()]))
        .then([tool_ended(1, "c", ToolOutcome::Completed, "ok")], []);
    world.woken().then([], [look()]);
    world.looked(idle([ended])).then(
        [
            interrupted(1, &["x1"]),
            rerun_decided(1, Rerun::Wait, TOOLS),
        ],
        [],
    );
}

#[test]
fn a_run_that_died_waits_for_a_person_where_a_tool_had_begun() {
    let mut world = once_idle_with_tool();
    let then = world.looked(idle([dead_with_tool()]));
    then.then(
        [
            interrupted(1, &["x1"]),
            tool_ended(1, "c", ToolOutcome::Lost, ""),
            rerun_decided(1, Rerun::Wait, TOOLS),
        ],
        [],
    );
    assert_eq!(then.provenances()[..2], [Provenance::Inferred; 2]);
    assert_eq!(world.state.status(), recount_projections::Status::Waiting);
    // A person may take days, over restarts and lost connections.
    world.unlinked(true).nothing();
    world.after(Duration::from_secs(24 * 3600)).nothing();
    world.restart();
    world.linked().nothing();
    // Somebody may have written into the agent's session meanwhile: it is looked at first.
    world
        .command(Command::Rerun { run: true })
        .then([rerun_decided(1, Rerun::Run, "a person's word")], [look()]);
    world
        .looked(idle([dead_with_tool()]))
        .then([requested(M1, 2)], [start(M1)]);
}

#[test]
fn a_person_may_give_it_up() {
    let mut world = once_idle_with_tool();
    let _ = world.looked(idle([dead_with_tool()]));
    world.command(Command::Rerun { run: false }).then(
        [
            rerun_decided(1, Rerun::GiveUp, "a person's word"),
            failed(1, "the agent died in it, and a person gave it up"),
        ],
        [],
    );
}

#[test]
fn a_person_may_abort_it() {
    let mut world = once_idle_with_tool();
    let _ = world.looked(idle([dead_with_tool()]));
    world
        .command(Command::Abort)
        .then([Event::TurnAbortAsked { message: M1 }, aborted(1)], []);
}

#[test]
fn another_policy_ends_the_waiting() {
    let mut world = once_idle_with_tool();
    let _ = world.looked(idle([dead_with_tool()]));
    world.machine.policy.rerun = RerunPolicy::Auto;
    world.when(Input::Woke).then(
        [rerun_decided(1, Rerun::Run, "the policy is auto")],
        [look()],
    );

    let mut world = once_idle_with_tool();
    let _ = world.looked(idle([dead_with_tool()]));
    world.machine.policy.rerun = RerunPolicy::Never;
    world.when(Input::Woke).then(
        [
            rerun_decided(1, Rerun::GiveUp, "the policy is never"),
            failed(
                1,
                "the agent died in it, and it is not run again: the policy is never",
            ),
        ],
        [],
    );
}

#[test]
fn the_policy_auto_runs_again_whatever_had_begun() {
    let mut world = once_idle_with_tool();
    world.machine.policy.rerun = RerunPolicy::Auto;
    world.looked(idle([dead_with_tool()])).then(
        [
            interrupted(1, &["x1"]),
            tool_ended(1, "c", ToolOutcome::Lost, ""),
            rerun_decided(1, Rerun::Run, "the policy is auto"),
            requested(M1, 2),
        ],
        [start(M1)],
    );
}

#[test]
fn a_decision_that_was_cut_short_is_made_again() {
    let mut events = running();
    events.push(interrupted(1, &["x1"]));
    let mut world = given(events);
    world
        .linked()
        .then([rerun_decided(1, Rerun::Run, NO_TOOL)], [look()]);
}

#[test]
fn where_one_run_is_allowed_there_is_no_other() {
    let mut world = given(running());
    world.machine.policy.runs_max = 1;
    world.record([interrupted(1, &[])]);
    let why = "no run but the first is allowed";
    let end = format!("the agent died in it, and it is not run again: {why}");
    world
        .when(Input::Woke)
        .then([rerun_decided(1, Rerun::GiveUp, why), failed(1, &end)], []);
}

#[test]
fn runs_are_bounded() {
    let mut world = given(running());
    for run in 1..world.policy.runs_max {
        world.record([
            interrupted(run, &[]),
            rerun_decided(run, Rerun::Run, NO_TOOL),
            requested(M1, run + 1),
            started(M1, run + 1),
        ]);
    }
    world.record([interrupted(10, &[])]);
    world.when(Input::Woke).then(
        [
            rerun_decided(10, Rerun::GiveUp, "the agent died in all 10 runs"),
            failed(
                10,
                "the agent died in it, and it is not run again: the agent died in all 10 runs",
            ),
        ],
        [],
    );
}

#[test]
fn a_message_that_is_not_the_newest_is_not_run_again() {
    let mut world = once_idle();
    let report = Report {
        newest: false,
        ..idle([dead()])
    };
    let reason = "a newer message is in the agent's session";
    world.looked(report).then(
        [
            interrupted(1, &["x1"]),
            rerun_decided(1, Rerun::GiveUp, reason),
            failed(
                1,
                &format!("the agent died in it, and it is not run again: {reason}"),
            ),
        ],
        [],
    );
}

#[test]
fn what_the_agent_forgot_after_it_began_is_sent_again_for_the_next_run() {
    let mut world = given_linked(running());
    let _ = world.linked();
    world.looked(absent()).nothing();
    world.woken().then([], [look()]);
    world.looked(absent()).then(
        [interrupted(1, &[]), rerun_decided(1, Rerun::Run, NO_TOOL)],
        [look()],
    );
    let evidence = "the agent's history does not hold it any more";
    world.looked(absent()).then(
        [
            Event::DeliveryResolved {
                message: M1,
                attempt: 1,
                resolution: Resolution::Absent,
                evidence: evidence.to_owned(),
            },
            Event::RetryScheduled {
                message: M1,
                attempt: 2,
                at: world.now,
            },
            sending(M1, 2),
        ],
        [store(M1)],
    );
    world.when(Input::Stored(Ok(()))).then(
        [
            Event::DeliveryAccepted {
                message: M1,
                attempt: 2,
            },
            requested(M1, 2),
        ],
        [start(M1)],
    );
}
