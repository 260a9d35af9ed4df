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

fn expired(question: &str) -> Event {
    Event::QuestionExpired {
        message: M1,
        question: question.to_owned(),
        reason: "nobody answered within 86400s".to_owned(),
    }
}

#[test]
fn what_nobody_answers_is_refused_in_nobodys_name() {
    let reject = PermissionAnswer::Reject;
    for (asks, asked, refusal, settled, ending) in [
        (
            asks_in_words("w"),
            asked_in_words("w"),
            words_effect("w", None),
            settled_in_words("w", Some("null")),
            "its question was refused, since nobody answered within 86400s: Which colour?",
        ),
        (
            Observation::PermissionAsked(permission("w")),
            asked("w"),
            answer_effect("w", reject),
            settled("w", Some(reject)),
            "permission was refused, since nobody answered within 86400s: bash rm -r x",
        ),
    ] {
        let mut world = given_linked(running());
        world.observed(asks).then([asked], []);
        let patience = world.policy.question_patience;
        world
            .after(patience.saturating_sub(second()))
            .then([], [look()]);
        let mut report = busy([]);
        if matches!(refusal, Effect::AnswerQuestion { .. }) {
            report.questions = vec![in_words("w")];
        } else {
            report.permissions = vec![permission("w")];
        }
        world.looked(report).nothing();
        assert_eq!(world.wake_at, Some(T0.plus(patience)));
        world.woken().then([expired("w")], [refusal]);
        world
            .when(came_back(Ok(AnswerOutcome::Taken)))
            .then([settled], []);
        let _ = world.observed(Observation::Idle);
        world
            .looked(idle([with(finished("x1", "tool-calls"), [])]))
            .then([failed(1, ending)], []);
    }
}

#[test]
fn what_an_earlier_engine_saw_asked_expires_once_it_is_known_to_be_alive() {
    let mut world = given_linked(running());
    let _ = world.observed(asks_in_words("w"));
    world.restart();
    world.now = world.now.plus(world.policy.question_patience);
    world.linked().then([], [look()]);
    world
        .looked(busy_asking(&["w"]))
        .then([expired("w")], [words_effect("w", None)]);
    // Another process gave an answer, a moment before.
    world
        .observed(says("w", BLUE))
        .then([settled_in_words("w", BLUE_JSON)], []);
    let question = &world.transcript().turns[0].questions[0];
    assert_eq!(question.expired, None);
    assert_eq!(
        question.answer.as_ref().and_then(|answer| answer.words()),
        Some(&words(BLUE.expect("some"))[..])
    );
    // One that has died has not expired.
    let mut world = given_linked(running());
    let _ = world.observed(asks_in_words("w"));
    world.restart();
    world.now = world.now.plus(world.policy.question_patience);
    let _ = world.linked();
    world
        .looked(busy([]))
        .then([settled_in_words("w", None)], []);
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
