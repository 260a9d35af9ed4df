//! The agent's questions: asked, answered, settled, each once.

use super::*;
use crate::command::Command;

fn asks(id: &str) -> Observation {
    Observation::PermissionAsked(permission(id))
}

fn answer(answer: PermissionAnswer) -> Command {
    Command::Answer {
        permission: None,
        answer,
    }
}

fn came_back(outcome: Result<AnswerOutcome, CallError>) -> Input {
    Input::Answered {
        question: "q".to_owned(),
        outcome,
    }
}

fn busy_asking(ids: &[&str]) -> Report {
    Report {
        permissions: ids.iter().map(|id| permission(id)).collect(),
        ..busy([])
    }
}

#[test]
fn a_question_is_recorded_answered_and_settled_once() {
    let mut world = given_linked(running());
    world.observed(asks("q")).then([asked("q")], []);
    world.observed(asks("q")).nothing();
    assert_eq!(world.state.status(), recount_projections::Status::Waiting);
    world.command(answer(PermissionAnswer::Once)).then(
        [answered("q", PermissionAnswer::Once)],
        [answer_effect("q", PermissionAnswer::Once)],
    );
    assert_eq!(world.state.status(), recount_projections::Status::Busy);
    world
        .observed(replied("q", PermissionAnswer::Once))
        .then([settled("q", Some(PermissionAnswer::Once))], []);
    world.when(came_back(Ok(AnswerOutcome::Taken))).nothing();
}

#[test]
fn a_question_that_was_missed_comes_from_the_look() {
    let mut world = given(running());
    let _ = world.linked();
    let then = world.looked(busy_asking(&["q"]));
    then.then([asked("q")], []);
    assert_eq!(then.provenances(), [Provenance::Backfilled]);
}

#[test]
fn a_question_of_a_sub_agent_is_ours() {
    let mut world = given_linked(running());
    world.observed_in_child(asks("q")).then([asked("q")], []);
    // The rest of what it does is not.
    world
        .observed_in_child(part_ended("y1", "p", "inner"))
        .nothing();
    world.observed_in_child(Observation::Idle).nothing();
}

#[test]
fn an_answer_that_did_not_get_through_is_given_again() {
    let mut world = given_linked(running());
    let _ = world.observed(asks("q"));
    let again = answer_effect("q", PermissionAnswer::Always);
    let _ = world.command(answer(PermissionAnswer::Always));
    world
        .when(came_back(Err(unknown("lost"))))
        .then([], [Effect::Suspect]);
    world.woken().then([], [look()]);
    world.looked(busy_asking(&["q"])).then([], [again.clone()]);
    // So it is after a reconnect, and after a restart.
    let _ = world.unlinked(false);
    world.linked().then([], [again.clone(), look()]);
    world.restart();
    world.linked().then([], [again, look()]);
    world
        .when(came_back(Ok(AnswerOutcome::Gone)))
        .then([settled("q", None)], []);
}

#[test]
fn a_question_that_is_gone_when_it_is_looked_for_is_settled() {
    let mut world = given_linked(running());
    let _ = world.observed(asks("q"));
    let _ = world.unlinked(false);
    world.linked().then([], [look()]);
    // This one was asked while the look was under way, which may have been too early to see it.
    world.observed(asks("r")).then([asked("r")], []);
    let then = world.looked(busy([]));
    then.then([settled("q", None)], []);
    assert_eq!(then.provenances(), [Provenance::Backfilled]);
    // What the answer was is news, if its frame comes after all.
    world
        .observed(replied("q", PermissionAnswer::Once))
        .then([settled("q", Some(PermissionAnswer::Once))], []);
    world
        .observed(replied("q", PermissionAnswer::Once))
        .nothing();
}

#[test]
fn a_question_is_waited_for_while_it_is_known_to_be_alive() {
    let mut world = given_linked(running());
    let at_rest = |world: &World| world.machine.is_at_rest(&world.state);
    let _ = world.observed(asks("q"));
    assert!(at_rest(&world));
    let _ = world.unlinked(false);
    assert!(!at_rest(&world));
    let _ = world.linked();
    assert!(!at_rest(&world));
    world.looked(busy_asking(&["q"])).nothing();
    assert!(at_rest(&world));
    world.restart();
    let _ = world.linked();
    assert!(!at_rest(&world));
    // An agent that does not work on the turn asks nothing. Another look says what became of it.
    let cut_off = || idle([with(answer_to(&a1(), "x1"), [])]);
    world.looked(cut_off()).nothing();
    assert!(!at_rest(&world));
    world.woken().then([], [look()]);
    let then = world.looked(cut_off());
    assert_eq!(
        then.events.first().map(|new| &new.event),
        Some(&interrupted(1, &["x1"]))
    );
}

#[test]
fn a_question_that_an_aborted_turn_left_behind_is_not_the_next_ones() {
    let mut world = given_linked(running());
    world.record([queued(M2)]);
    let _ = world.observed(asks("q"));
    let _ = world.command(Command::Abort);
    let _ = world.observed(Observation::Idle);
    let _ = world.looked(idle([with(broken("x1", "MessageAbortedError", true), [])]));
    let _ = world.when(Input::Stored(Ok(())));
    let _ = world.when(Input::Started(Ok(())));
    let _ = world.observed(Observation::AnswerUpdated(answer_to(&a2(), "x2")));
    let _ = world.observed(Observation::Idle);
    world.looked(busy_asking(&["q"])).nothing();
    assert_eq!(world.state_of(M2), MessageState::Running);
}

#[test]
fn a_refused_permission_fails_the_turn() {
    let mut world = given_linked(running());
    let _ = world.observed(asks("q"));
    let _ = world.command(answer(PermissionAnswer::Reject));
    let _ = world.when(came_back(Ok(AnswerOutcome::Taken)));
    let _ = world.observed(Observation::Idle);
    world
        .looked(idle([with(finished("x1", "tool-calls"), [])]))
        .then([failed(1, "permission was refused: bash rm -r x")], []);
}

#[test]
fn a_permission_that_somebody_else_refused_fails_the_turn() {
    let mut world = given_linked(running());
    let _ = world.observed(asks("q"));
    world
        .observed(replied("q", PermissionAnswer::Reject))
        .then([settled("q", Some(PermissionAnswer::Reject))], []);
    let _ = world.observed(Observation::Idle);
    world
        .looked(idle([with(finished("x1", "tool-calls"), [])]))
        .then([failed(1, "permission was refused: bash rm -r x")], []);
}

#[test]
fn a_permission_that_was_refused_while_nobody_listened_fails_the_turn() {
    let mut world = given(running());
    let _ = world.linked();
    let refused = ReportedAnswer {
        refused: true,
        ..with(finished("x1", "tool-calls"), [])
    };
    world
        .looked(idle([refused]))
        .then([failed(1, "what it wanted was refused")], []);
}

#[test]
fn the_answer_that_the_agent_took_counts_where_it_is_not_ours() {
    let mut world = given_linked(running());
    let _ = world.observed(asks("q"));
    let _ = world.command(answer(PermissionAnswer::Once));
    world
        .observed(replied("q", PermissionAnswer::Reject))
        .then([settled("q", Some(PermissionAnswer::Reject))], []);
    world.when(came_back(Ok(AnswerOutcome::Gone))).nothing();
    let _ = world.observed(Observation::Idle);
    world
        .looked(idle([with(finished("x1", "tool-calls"), [])]))
        .then([failed(1, "permission was refused: bash rm -r x")], []);
}

#[test]
fn our_answer_that_was_taken_is_the_answer() {
    let mut world = given_linked(running());
    let _ = world.observed(asks("q"));
    let _ = world.command(answer(PermissionAnswer::Always));
    world
        .when(came_back(Ok(AnswerOutcome::Taken)))
        .then([settled("q", Some(PermissionAnswer::Always))], []);
}

#[test]
fn an_open_question_stops_the_clock_of_silence_and_its_answer_starts_it_anew() {
    let mut world = given_linked(running());
    let _ = world.observed(asks("q"));
    let silence = world.policy.silence_max;
    world.after(silence * 2).then([], [look()]);
    let _ = world.looked(busy_asking(&["q"]));
    world.command(answer(PermissionAnswer::Once)).then(
        [answered("q", PermissionAnswer::Once)],
        [answer_effect("q", PermissionAnswer::Once)],
    );
    let _ = world.when(came_back(Ok(AnswerOutcome::Taken)));
    world
        .after(silence)
        .then([stalled("nothing came from the agent for 300s")], [abort()]);
}

#[test]
fn an_open_question_stops_the_clock_of_the_turn_and_its_answer_starts_it_anew() {
    let mut world = given_linked(running());
    let _ = world.observed(asks("q"));
    let whole = world.policy.turn_max;
    world.after(whole * 2).then([], [look()]);
    let _ = world.looked(busy_asking(&["q"]));
    world.command(answer(PermissionAnswer::Once)).then(
        [answered("q", PermissionAnswer::Once)],
        [answer_effect("q", PermissionAnswer::Once)],
    );
    let _ = world.when(came_back(Ok(AnswerOutcome::Taken)));
    world.now = world.now.plus(whole.saturating_sub(second()));
    let _ = world.observed(Observation::Busy);
    world
        .after(second())
        .then([stalled("the turn took longer than 3600s")], [abort()]);
}

#[test]
fn a_question_that_somebody_else_answered_starts_the_clock_anew() {
    let mut world = given_linked(running());
    let _ = world.observed(asks("q"));
    world.now = world.now.plus(world.policy.turn_max * 2);
    world
        .observed(replied("q", PermissionAnswer::Once))
        .then([settled("q", Some(PermissionAnswer::Once))], []);

    let mut world = given_linked(running());
    let _ = world.observed(asks("q"));
    world.after(world.policy.turn_max * 2).then([], [look()]);
    world.looked(busy([])).then([settled("q", None)], []);
}

#[test]
fn an_answer_that_comes_back_late_settles_nothing_of_the_next_turn() {
    let mut world = given_linked(running());
    world.record([queued(M2)]);
    let _ = world.observed(asks("q"));
    let _ = world.command(answer(PermissionAnswer::Once));
    let _ = world.observed(Observation::Idle);
    let _ = world.looked(idle([with(finished("x1", "stop"), [])]));
    let _ = world.when(Input::Stored(Ok(())));
    world.when(came_back(Ok(AnswerOutcome::Taken))).nothing();
}
