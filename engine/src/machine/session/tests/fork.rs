//! A session that goes on from another one: from a copy where the agent makes one, else with what was said.

use super::*;
use crate::machine::session::deliver::pause;

pub(super) const CONTEXT: &str = "What was said before:\n\n";

pub(super) fn forked() -> Event {
    Event::SessionForked {
        from: SessionId::from_bytes([8; 10]),
        at: Seq(40),
        agent_session: Some("old".to_owned()),
        through: Some("agent:old".to_owned()),
        context: Some(CONTEXT.to_owned()),
    }
}

fn fork() -> Effect {
    Effect::ForkSession {
        spec: spec(),
        origin: Origin {
            agent_session: "old".to_owned(),
            through: "agent:old".to_owned(),
        },
    }
}

fn copied() -> Event {
    Event::AgentSessionForked {
        agent_session: "ses".to_owned(),
    }
}

fn refused(reason: &str) -> Event {
    Event::AgentForkRefused {
        reason: reason.to_owned(),
    }
}

/// The delivery of a message with what was said before it.
fn with_context(message: MessageId) -> Delivery {
    let delivery = delivery(message);
    Delivery {
        text: format!("{CONTEXT}{}", delivery.text),
        ..delivery
    }
}

/// The call for a copy is under way.
fn copying() -> World {
    let mut world = given([opened(), forked(), queued(M1)]);
    world.linked().then([bind_requested()], [fork()]);
    world
}

/// The agent makes no copy, and so a new session, which is told what was said.
fn told() -> World {
    let mut world = copying();
    world.when(Input::Bound(Err(no_such_session()))).then(
        [refused("no such session"), sending(M1, 1), bind_requested()],
        [Effect::CreateSession(spec())],
    );
    world.when(Input::Bound(Ok(Some("ses".to_owned())))).then(
        [bound(), Event::ContextAdded { message: M1 }],
        [Effect::Store(with_context(M1))],
    );
    world
}

#[test]
fn a_copy_is_made_before_the_first_message_has_an_identity() {
    let mut world = copying();
    // Nothing else happens meanwhile.
    world.after(second()).nothing();
    world
        .when(Input::Bound(Ok(Some("ses".to_owned()))))
        .then([copied(), sending(M1, 1)], [store(M1)]);
}

#[test]
fn nothing_is_copied_before_there_is_something_to_send() {
    let mut world = given([opened(), forked()]);
    world.linked().nothing();
}

#[test]
fn an_agent_that_does_not_copy_is_told_what_was_said_in_both_phases_of_the_first_message() {
    let mut world = told();
    world.when(Input::Stored(Ok(()))).then(
        [accepted(M1), requested(M1, 1)],
        [Effect::Start(with_context(M1))],
    );
    world.when(Input::Started(Ok(()))).nothing();
    // And no second time.
    world.record([started(M1, 1), completed(M1, 1), queued(M2)]);
    world.when(Input::Woke).then([sending(M2, 1)], [store(M2)]);
}

#[test]
fn each_word_that_no_copy_will_be_made_is_final() {
    let reason = || "no".to_owned();
    for error in [
        CallError::RefusedForGood { reason: reason() },
        CallError::Unsupported { reason: reason() },
        CallError::NoSuchSession { reason: reason() },
    ] {
        copying().when(Input::Bound(Err(error))).then(
            [refused("no"), sending(M1, 1), bind_requested()],
            [Effect::CreateSession(spec())],
        );
    }
}

#[test]
fn a_copy_that_may_have_been_made_is_looked_for_before_another_one_is_asked_for() {
    let mut world = copying();
    let lost = Input::Bound(Err(unknown("lost")));
    world.when(lost).then([], [Effect::Suspect]);
    world.woken().then([], [Effect::FindSession(spec())]);
    // It was not made, nor is it a moment later, so it is asked for once more.
    world.when(Input::Bound(Ok(None))).nothing();
    world.woken().then([], [Effect::FindSession(spec())]);
    world.when(Input::Bound(Ok(None))).then([], [fork()]);
    // Another process looks for it first, too.
    world.restart();
    world.linked().then([], [Effect::FindSession(spec())]);
    world
        .when(Input::Bound(Ok(Some("ses".to_owned()))))
        .then([copied(), sending(M1, 1)], [store(M1)]);
}

#[test]
fn copies_are_asked_for_as_often_as_the_policy_says_and_later_each_time() {
    let mut world = copying();
    let attempts = world.policy.retries.unknown.attempts_max;
    assert!(attempts > 1);
    let mut pauses = Vec::new();
    for _ in 1..attempts {
        let began = world.now;
        let lost = Input::Bound(Err(unknown("lost")));
        world.when(lost).then([], [Effect::Suspect]);
        world.woken().then([], [Effect::FindSession(spec())]);
        pauses.push(world.now.since(began));
        world.when(Input::Bound(Ok(None))).nothing();
        world.woken().then([], [Effect::FindSession(spec())]);
        world.when(Input::Bound(Ok(None))).then([], [fork()]);
    }
    let backoff = world.policy.retries.unknown.backoff;
    let planned = (2..=attempts).map(|attempt| pause(&backoff, M1, attempt));
    assert_eq!(pauses, planned.collect::<Vec<_>>());
    let lost = Input::Bound(Err(unknown("lost again")));
    world.when(lost).then(
        [refused("lost again"), sending(M1, 1), bind_requested()],
        [Effect::CreateSession(spec())],
    );
}

#[test]
fn a_server_that_is_busy_is_given_the_time_that_it_wants() {
    let mut world = copying();
    let busy = CallError::RefusedForNow {
        retry_after: Some(Duration::from_secs(7)),
        reason: "busy".to_owned(),
    };
    let began = world.now;
    world
        .when(Input::Bound(Err(busy)))
        .then([], [Effect::Suspect]);
    world.woken().then([], [Effect::FindSession(spec())]);
    assert!(world.now.since(began) >= Duration::from_secs(7));
}

#[test]
fn a_copy_that_nobody_waits_for_any_more_is_kept_for_the_next_message() {
    let mut world = copying();
    world
        .command(crate::command::Command::Cancel { message: M1 })
        .then([Event::MessageCancelled { message: M1 }], []);
    world
        .when(Input::Bound(Ok(Some("ses".to_owned()))))
        .then([copied()], []);
    world.record([queued(M2)]);
    world.when(Input::Woke).then([sending(M2, 1)], [store(M2)]);
}

#[test]
fn a_failure_that_nobody_waits_for_any_more_is_forgotten() {
    let mut world = copying();
    world
        .command(crate::command::Command::Cancel { message: M1 })
        .then([Event::MessageCancelled { message: M1 }], []);
    world.when(Input::Bound(Err(unknown("lost")))).nothing();
    world.record([queued(M2)]);
    world
        .when(Input::Woke)
        .then([], [Effect::FindSession(spec())]);
}

#[test]
fn a_message_that_did_not_arrive_brings_it_again_and_so_does_the_next_one() {
    let mut world = told();
    let busy = CallError::RefusedForGood {
        reason: "too long".to_owned(),
    };
    let given_up = Event::MessageDeadLettered {
        message: M1,
        reason: "the agent refused it: too long".to_owned(),
    };
    world.record([queued(M2)]);
    let added = Event::ContextAdded { message: M2 };
    world.when(Input::Stored(Err(busy))).then(
        [
            rejected(1, Refusal::ForGood, "too long"),
            given_up,
            sending(M2, 1),
            added,
        ],
        [Effect::Suspect, Effect::Store(with_context(M2))],
    );
}

#[test]
fn an_agent_that_lost_its_copy_is_told_what_was_said() {
    let mut world = given([opened(), forked(), bind_requested(), copied(), queued(M1)]);
    world.linked().then([sending(M1, 1)], [store(M1)]);
    let lost = Event::AgentSessionLost {
        agent_session: "ses".to_owned(),
    };
    world.when(Input::Stored(Err(no_such_session())));
    assert!(world.log.iter().any(|known| known.event == lost));
    let then = world.woken();
    then.then(
        [sending(M1, 2), bind_requested()],
        [Effect::CreateSession(spec())],
    );
    world.when(Input::Bound(Ok(Some("ses2".to_owned())))).then(
        [
            Event::AgentSessionBound {
                agent_session: "ses2".to_owned(),
            },
            Event::ContextAdded { message: M1 },
        ],
        [Effect::Store(Delivery {
            session: AgentSession {
                id: "ses2".to_owned(),
                ..agent_session()
            },
            ..with_context(M1)
        })],
    );
}
