//! Questions in words: as permissions are, with answers in words.

use super::*;
use crate::command::Command;

fn answer(answers: Option<&[&[&str]]>) -> Command {
    Command::AnswerQuestion {
        question: None,
        answers: answers.map(words),
    }
}

fn says(question: &str, answers: Option<&[&[&str]]>) -> Observation {
    Observation::QuestionReplied {
        question: question.to_owned(),
        answers: answers.map(words),
    }
}

fn came_back(outcome: Result<AnswerOutcome, CallError>) -> Input {
    Input::Answered {
        question: "w".to_owned(),
        outcome,
    }
}

fn busy_asking(ids: &[&str]) -> Report {
    Report {
        questions: ids.iter().map(|id| in_words(id)).collect(),
        ..busy([])
    }
}

const BLUE: Option<&[&[&str]]> = Some(&[&["blue"]]);
const BLUE_JSON: Option<&str> = Some(r#"[["blue"]]"#);

#[test]
fn a_question_is_recorded_answered_and_settled_once() {
    let mut world = given_linked(running());
    world
        .observed(asks_in_words("w"))
        .then([asked_in_words("w")], []);
    world.observed(asks_in_words("w")).nothing();
    assert_eq!(world.state.status(), recount_projections::Status::Waiting);
    world.command(answer(BLUE)).then(
        [answered_in_words("w", BLUE_JSON)],
        [words_effect("w", BLUE)],
    );
    assert_eq!(world.state.status(), recount_projections::Status::Busy);
    world
        .observed(says("w", BLUE))
        .then([settled_in_words("w", BLUE_JSON)], []);
    world.when(came_back(Ok(AnswerOutcome::Taken))).nothing();
}

#[test]
fn our_answer_that_was_taken_is_the_answer() {
    let mut world = given_linked(running());
    let _ = world.observed(asks_in_words("w"));
    let _ = world.command(answer(BLUE));
    world
        .when(came_back(Ok(AnswerOutcome::Taken)))
        .then([settled_in_words("w", BLUE_JSON)], []);
    world.observed(says("w", BLUE)).nothing();
}

#[test]
fn a_refusal_fails_the_turn() {
    let mut world = given_linked(running());
    let _ = world.observed(asks_in_words("w"));
    world
        .command(answer(None))
        .then([answered_in_words("w", None)], [words_effect("w", None)]);
    world
        .when(came_back(Ok(AnswerOutcome::Taken)))
        .then([settled_in_words("w", Some("null"))], []);
    let _ = world.observed(Observation::Idle);
    world
        .looked(idle([with(finished("x1", "tool-calls"), [])]))
        .then([failed(1, "its question was refused: Which colour?")], []);
}

#[test]
fn a_question_that_somebody_else_refused_fails_the_turn() {
    let mut world = given_linked(running());
    let _ = world.observed(asks_in_words("w"));
    world
        .observed(says("w", None))
        .then([settled_in_words("w", Some("null"))], []);
    let _ = world.observed(Observation::Idle);
    world
        .looked(idle([with(finished("x1", "tool-calls"), [])]))
        .then([failed(1, "its question was refused: Which colour?")], []);
}

#[test]
fn a_question_that_was_missed_comes_from_the_look_and_one_that_is_gone_goes_with_it() {
    let mut world = given(running());
    let _ = world.linked();
    let then = world.looked(busy_asking(&["w"]));
    then.then([asked_in_words("w")], []);
    assert_eq!(then.provenances(), [Provenance::Backfilled]);
    let _ = world.unlinked(false);
    world.linked().then([], [look()]);
    world
        .looked(busy_asking(&["v"]))
        .then([settled_in_words("w", None), asked_in_words("v")], []);
}

#[test]
fn an_answer_that_did_not_get_through_is_given_again() {
    let mut world = given_linked(running());
    let _ = world.observed(asks_in_words("w"));
    let again = words_effect("w", BLUE);
    let _ = world.command(answer(BLUE));
    world
        .when(came_back(Err(unknown("lost"))))
        .then([], [Effect::Suspect]);
    world.woken().then([], [look()]);
    world.looked(busy_asking(&["w"])).then([], [again.clone()]);
    world.restart();
    world.linked().then([], [again, look()]);
    world
        .when(came_back(Ok(AnswerOutcome::Gone)))
        .then([settled_in_words("w", None)], []);
}

#[test]
fn what_an_aborted_turn_asked_is_not_the_next_ones() {
    let mut world = given_linked(running());
    world.record([queued(M2)]);
    let _ = world.observed(asks_in_words("w"));
    let _ = world.command(Command::Abort);
    let _ = world.observed(Observation::Idle);
    let _ = world.looked(idle([with(broken("x1", "MessageAbortedError", true), [])]));
    let _ = world.when(Input::Stored(Ok(())));
    let _ = world.when(Input::Started(Ok(())));
    let _ = world.observed(Observation::AnswerUpdated(answer_to(&a2(), "x2")));
    let _ = world.observed(Observation::Idle);
    world.looked(busy_asking(&["w"])).nothing();
    assert_eq!(world.state_of(M2), MessageState::Running);
}

#[test]
fn what_the_agent_asked_dies_with_it() {
    let mut world = given_linked(running());
    let _ = world.observed(asks_in_words("w"));
    let cut_off = || idle([with(answer_to(&a1(), "x1"), [])]);
    let _ = world.observed(Observation::Idle);
    let _ = world.looked(cut_off());
    let _ = world.woken();
    let then = world.looked(cut_off());
    assert_eq!(
        then.events.first().map(|new| &new.event),
        Some(&interrupted(1, &["x1"]))
    );
    assert!(!world.state.questions_open());
    let refused = crate::command::decide(
        &world.state,
        answer(BLUE),
        world.policy.bounds(true),
        world.now,
    );
    assert_eq!(refused, Err(crate::command::Rejection::NoSuchQuestion));
}

#[test]
fn a_permission_and_a_question_are_each_answered_in_their_way() {
    let mut world = given_linked(running());
    let _ = world.observed(Observation::PermissionAsked(permission("q")));
    let _ = world.observed(asks_in_words("w"));
    world.command(answer(BLUE)).then(
        [answered_in_words("w", BLUE_JSON)],
        [words_effect("w", BLUE)],
    );
    assert!(world.state.questions_open(), "the permission is open");
    let once = PermissionAnswer::Once;
    world
        .command(Command::Answer {
            permission: None,
            answer: once,
        })
        .then([answered("q", once)], [answer_effect("q", once)]);
}
