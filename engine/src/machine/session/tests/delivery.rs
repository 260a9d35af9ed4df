//! Delivery: two phases, one identity, and what becomes of every outcome.

use super::*;

/// A first attempt whose first phase is under way.
fn storing() -> World {
    let mut world = given([opened(), bind_requested(), bound(), queued(M1)]);
    world.linked().then([sending(M1, 1)], [store(M1)]);
    world
}

fn retry(attempt: u32, at: Timestamp) -> Event {
    Event::RetryScheduled {
        message: M1,
        attempt,
        at,
    }
}

fn delivery_unknown(attempt: u32, reason: &str) -> Event {
    Event::DeliveryUnknown {
        message: M1,
        attempt,
        reason: reason.to_owned(),
    }
}

fn resolved(attempt: u32, resolution: Resolution, evidence: &str) -> Event {
    Event::DeliveryResolved {
        message: M1,
        attempt,
        resolution,
        evidence: evidence.to_owned(),
    }
}

#[test]
fn a_message_goes_out_in_two_phases_over_a_session_that_is_made_once() {
    let mut world = given([opened(), queued(M1), queued(M2)]);
    world.linked().then(
        [sending(M1, 1), bind_requested()],
        [Effect::CreateSession(spec())],
    );
    world
        .when(Input::Bound(Ok(Some("ses".to_owned()))))
        .then([bound()], [store(M1)]);
    world
        .when(Input::Stored(Ok(())))
        .then([accepted(M1), requested(M1, 1)], [start(M1)]);
    world.when(Input::Started(Ok(()))).nothing();
    world
        .observed(Observation::AnswerUpdated(answer_to(&a1(), "x1")))
        .then([started(M1, 1)], []);
    world.observed(Observation::Idle).then([], [look()]);
    // The next one goes the same way, in the session that is there.
    world
        .looked(idle([with(finished("x1", "stop"), [])]))
        .then([completed(M1, 1), sending(M2, 1)], [store(M2)]);
    world
        .when(Input::Stored(Ok(())))
        .then([accepted(M2), requested(M2, 1)], [start(M2)]);
}

#[test]
fn nothing_goes_out_without_a_connection() {
    let mut world = given([opened(), queued(M1)]);
    world.when(Input::Woke).nothing();
    world.unlinked(false).nothing();
    assert_eq!(world.wake_at, None);
}

#[test]
fn what_never_left_is_sent_again_after_a_pause_with_the_same_identity() {
    let mut world = storing();
    let then = world.when(Input::Stored(Err(never_sent("refused"))));
    let due = world
        .state
        .queue
        .head()
        .and_then(|message| message.retry_at);
    let due = due.expect("it is scheduled");
    then.then(
        [rejected(1, Refusal::NeverSent, "refused"), retry(2, due)],
        [Effect::Suspect],
    );
    assert!(due > world.now && due < world.now.plus(second()));
    assert_eq!(world.wake_at, Some(due));
    world.woken().then([sending(M1, 2)], [store(M1)]);
}

#[test]
fn what_something_else_answered_may_have_arrived_all_the_same() {
    let mut world = storing();
    let reason = "no OpenCode server answers there: text/html".to_owned();
    let answer = Err(CallError::Unsupported {
        reason: reason.clone(),
    });
    world
        .when(Input::Stored(answer))
        .then([delivery_unknown(1, &reason)], [Effect::Suspect, look()]);
}

#[test]
fn a_retry_waits_as_long_as_the_agent_said() {
    let mut world = storing();
    let retry_after = Some(Duration::from_secs(20));
    let reason = "busy".to_owned();
    world
        .when(Input::Stored(Err(CallError::RefusedForNow {
            retry_after,
            reason,
        })))
        .then(
            [
                rejected(
                    1,
                    Refusal::ForNow {
                        retry_after: Some(20_000),
                    },
                    "busy",
                ),
                retry(2, T0.plus(Duration::from_secs(20))),
            ],
            [Effect::Suspect],
        );
    // A restart does not shorten it.
    world.restart();
    world.linked().nothing();
    assert_eq!(world.wake_at, Some(T0.plus(Duration::from_secs(20))));
    world.woken().then([sending(M1, 2)], [store(M1)]);
}

#[test]
fn a_retry_waits_no_longer_than_the_bound_whatever_the_agent_said() {
    let mut world = storing();
    let retry_after = Some(Duration::from_secs(24 * 3600));
    let reason = "busy".to_owned();
    let refused = CallError::RefusedForNow {
        retry_after,
        reason,
    };
    let _ = world.when(Input::Stored(Err(refused)));
    assert_eq!(world.wake_at, Some(T0.plus(world.policy.agent_retry_max)));
}

#[test]
fn what_is_refused_for_good_is_given_up() {
    let mut world = storing();
    let reason = "no such model".to_owned();
    world
        .when(Input::Stored(Err(CallError::RefusedForGood { reason })))
        .then(
            [
                rejected(1, Refusal::ForGood, "no such model"),
                dead_lettered("the agent refused it: no such model"),
            ],
            [Effect::Suspect],
        );
}

#[test]
fn attempts_are_bounded() {
    let mut world = storing();
    for attempt in 1..world.policy.attempts_max {
        let _ = world.when(Input::Stored(Err(never_sent("refused"))));
        world.woken().then([sending(M1, attempt + 1)], [store(M1)]);
    }
    world.when(Input::Stored(Err(never_sent("refused")))).then(
        [
            rejected(8, Refusal::NeverSent, "refused"),
            dead_lettered("8 attempts failed, the last with: refused"),
        ],
        [Effect::Suspect],
    );
}

#[test]
fn an_unknown_outcome_is_looked_up_and_what_arrived_is_not_sent_again() {
    let mut world = storing();
    world
        .when(Input::Stored(Err(unknown("the answer was lost"))))
        .then(
            [delivery_unknown(1, "the answer was lost")],
            [Effect::Suspect, look()],
        );
    world.looked(idle([])).then(
        [
            resolved(1, Resolution::Stored, "the agent's history holds it"),
            requested(M1, 1),
        ],
        [start(M1)],
    );
}

#[test]
fn an_unknown_outcome_is_looked_up_and_what_did_not_arrive_is_sent_again_at_once() {
    let mut world = storing();
    let _ = world.when(Input::Stored(Err(unknown("the answer was lost"))));
    let then = world.looked(absent());
    then.then(
        [
            resolved(
                1,
                Resolution::Absent,
                "the agent's history does not hold it",
            ),
            retry(2, T0),
            sending(M1, 2),
        ],
        [store(M1)],
    );
    assert_eq!(then.provenances()[0], Provenance::Backfilled);
}

#[test]
fn what_cannot_be_found_out_is_given_up_visibly() {
    let mut world = storing();
    let _ = world.when(Input::Stored(Err(unknown("the answer was lost"))));
    for _ in 1..world.policy.looks_max {
        let then = world.when(Input::Looked(Err(unknown("HTTP 500"))));
        then.then([], [Effect::Suspect]);
        world.woken().then([], [look()]);
    }
    world.when(Input::Looked(Err(unknown("HTTP 500")))).then(
        [dead_lettered(
            "whether it arrived cannot be found out: HTTP 500",
        )],
        [],
    );
}

#[test]
fn an_attempt_of_an_earlier_process_has_an_unknown_outcome() {
    let mut world = storing();
    world.restart();
    world.linked().then(
        [delivery_unknown(
            1,
            "the engine ended before the outcome was known",
        )],
        [look()],
    );
}

#[test]
fn a_session_whose_making_was_cut_short_is_looked_for() {
    let making = [opened(), queued(M1), sending(M1, 1), bind_requested()];
    let evidence = "the agent had no session for it yet, so nothing was sent";
    let mut world = given(making.clone());
    world.linked().then(
        [
            delivery_unknown(1, "the engine ended before the outcome was known"),
            resolved(1, Resolution::Absent, evidence),
            retry(2, T0),
            sending(M1, 2),
        ],
        [Effect::FindSession(spec())],
    );
    world
        .when(Input::Bound(Ok(Some("ses".to_owned()))))
        .then([bound()], [store(M1)]);

    let mut world = given(making);
    let _ = world.linked();
    world
        .when(Input::Bound(Ok(None)))
        .then([], [Effect::CreateSession(spec())]);
    // And so it is when this one's answer is lost as well.
    let then = world.when(Input::Bound(Err(unknown("timed out"))));
    let due = world.wake_at.expect("it is scheduled");
    then.then(
        [rejected(2, Refusal::NeverSent, "timed out"), retry(3, due)],
        [Effect::Suspect],
    );
    world
        .woken()
        .then([sending(M1, 3)], [Effect::FindSession(spec())]);
}

#[test]
fn what_the_agent_forgot_before_it_began_is_sent_again() {
    let mut events = held();
    events.push(requested(M1, 1));
    let mut world = given(events);
    world.linked().then([], [look()]);
    world.looked(absent()).then(
        [
            resolved(
                1,
                Resolution::Absent,
                "the agent's history does not hold it any more",
            ),
            retry(2, T0),
            sending(M1, 2),
        ],
        [store(M1)],
    );
    // Nothing had begun: it is the same run.
    world.when(Input::Stored(Ok(()))).then(
        [
            Event::DeliveryAccepted {
                message: M1,
                attempt: 2,
            },
            requested(M1, 1),
        ],
        [start(M1)],
    );
}

#[test]
fn a_message_held_by_an_earlier_process_is_looked_up_before_the_agent_is_asked_to_begin() {
    // Somebody may have written into the agent's session since, and one that is not the newest must not be sent again.
    let mut world = given(held());
    world.linked().then([], [look()]);
    world.looked(idle([])).then([requested(M1, 1)], [start(M1)]);

    let mut world = given(held());
    let _ = world.linked();
    world
        .looked(Report {
            newest: false,
            ..idle([])
        })
        .then([failed(0, "a newer message is in the agent's session")], []);

    let mut world = given(held());
    let _ = world.linked();
    let evidence = "the agent's history does not hold it any more";
    world.looked(absent()).then(
        [
            resolved(1, Resolution::Absent, evidence),
            retry(2, T0),
            sending(M1, 2),
        ],
        [store(M1)],
    );
}

#[test]
fn a_message_that_does_not_begin_is_asked_for_again_and_not_for_ever() {
    let mut world = given(held());
    let _ = world.linked();
    let mut then = world.looked(idle([]));
    for _ in 1..world.policy.requests_max {
        then.then([requested(M1, 1)], [start(M1)]);
        world.when(Input::Started(Ok(()))).nothing();
        world.woken().then([], [look()]);
        world.looked(idle([])).nothing();
        world.woken().then([], [look()]);
        then = world.looked(idle([]));
    }
    then.then([requested(M1, 1)], [start(M1)]);
    world.when(Input::Started(Ok(()))).nothing();
    world.woken().then([], [look()]);
    world.looked(idle([])).nothing();
    world.woken().then([], [look()]);
    world.looked(idle([])).then(
        [failed(1, "the agent was asked 8 times and never began")],
        [],
    );
}

#[test]
fn what_a_server_did_not_hear_before_it_died_is_not_counted() {
    let mut world = given(held());
    let _ = world.linked();
    let mut then = world.looked(idle([]));
    for _ in 0..3 * world.policy.requests_max {
        then.then([requested(M1, 1)], [start(M1)]);
        world.when(Input::Started(Ok(()))).nothing();
        let unlinked = Input::Unlinked {
            circuit_open: false,
            reason: None,
        };
        world.when(unlinked).nothing();
        world.linked().then([], [look()]);
        world.looked(idle([])).nothing();
        world.woken().then([], [look()]);
        then = world.looked(idle([]));
    }
    then.then([requested(M1, 1)], [start(M1)]);
}

#[test]
fn a_request_waits_as_long_as_the_agent_said() {
    let mut events = held();
    events.push(requested(M1, 1));
    let mut world = given(events);
    let _ = world.linked();
    world.looked(idle([])).nothing();
    world.woken().then([], [look()]);
    world.looked(idle([])).then([requested(M1, 1)], [start(M1)]);
    let retry_after = Some(Duration::from_secs(20));
    let reason = "busy".to_owned();
    world
        .when(Input::Started(Err(CallError::RefusedForNow {
            retry_after,
            reason,
        })))
        .then([], [Effect::Suspect]);
    assert_eq!(world.wake_at, Some(world.now.plus(Duration::from_secs(20))));
}
