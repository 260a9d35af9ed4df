//! Delivery: two phases, one identity, and what becomes of every outcome.

use recount_store::Verdict;

use super::*;
use crate::command::{Command, Word};
use crate::machine::session::policy::{Retries, Retry, UnknownPolicy};
use crate::policy::{Backoff, ConnectionPolicy};

/// A first attempt whose first phase is under way.
fn storing() -> World {
    storing_under(SessionPolicy::default())
}

fn storing_under(policy: SessionPolicy) -> World {
    let mut world = given([opened(), bind_requested(), bound(), queued(M1)]);
    world.adopt(policy);
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
    let bound = world.policy.retries.retry_after_max;
    assert_eq!(world.wake_at, Some(T0.plus(bound)));
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
fn an_attempt_above_the_first_waits_for_the_connections_leave() {
    let mut world = storing();
    let _ = world.when(Input::Stored(Err(never_sent("refused"))));
    let later = world.now.plus(Duration::from_secs(20));
    world.leave = Err(later);
    world.woken().then([retry(2, later)], []);
    assert_eq!(world.wake_at, Some(later));
    world.leave = Ok(());
    world.woken().then([sending(M1, 2)], [store(M1)]);
    // An abort meanwhile needs no leave.
    let _ = world.when(Input::Stored(Err(never_sent("refused"))));
    world.leave = Err(later);
    let asked = Event::TurnAbortAsked { message: M1 };
    world.command(Command::Abort).then([asked, aborted(0)], []);
}

#[test]
fn attempts_are_bounded_and_go_on_for_longer_than_a_dead_link_goes_unnoticed() {
    let mut world = storing();
    let begun = world.now;
    for attempt in 1..world.policy.retries.never_sent.attempts_max {
        let _ = world.when(Input::Stored(Err(never_sent("refused"))));
        world.woken().then([sending(M1, attempt + 1)], [store(M1)]);
    }
    world.when(Input::Stored(Err(never_sent("refused")))).then(
        [
            rejected(12, Refusal::NeverSent, "refused"),
            dead_lettered("12 attempts failed, the last with: refused"),
        ],
        [Effect::Suspect],
    );
    let unnoticed = ConnectionPolicy::default().silence_answering_max;
    assert!(world.now.since(begun) > unnoticed);
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

/// Where a look was refused for as long as it was tried.
fn never_told(policy: UnknownPolicy) -> (World, Then) {
    let mut world = storing_under(SessionPolicy {
        unknown: policy,
        ..SessionPolicy::default()
    });
    let _ = world.when(Input::Stored(Err(unknown("the answer was lost"))));
    for _ in 1..world.policy.looks_max {
        let then = world.when(Input::Looked(Err(unknown("HTTP 500"))));
        then.then([], [Effect::Suspect]);
        world.woken().then([], [look()]);
    }
    let then = world.when(Input::Looked(Err(unknown("HTTP 500"))));
    (world, then)
}

const NOT_TOLD: &str = "the agent does not say whether it arrived: HTTP 500";

fn unknown_decided(verdict: Verdict, reason: &str) -> Event {
    Event::UnknownDecided {
        message: M1,
        attempt: 1,
        verdict,
        reason: reason.to_owned(),
    }
}

#[test]
fn what_cannot_be_found_out_waits_for_a_person_and_holds_up_what_is_behind_it() {
    let (mut world, then) = never_told(UnknownPolicy::Ask);
    let reason = format!("{NOT_TOLD}; the policy is ask");
    then.then([unknown_decided(Verdict::Wait, &reason)], []);
    assert_eq!(world.state_of(M1), MessageState::Waiting);
    assert!(world.machine.is_at_rest(&world.state));
    world.record([queued(M2)]);
    world.after(Duration::from_secs(24 * 3600)).nothing();
    assert_eq!(world.wake_at, None);

    let resolve = |word| Command::Resolve { word };
    let said = |verdict| unknown_decided(verdict, "a person's word");
    let sent_again = world.clone().command(resolve(Word::Resend));
    sent_again.then(
        [said(Verdict::Resend), retry(2, world.now), sending(M1, 2)],
        [store(M1)],
    );
    let arrived = world.clone().command(resolve(Word::Arrived));
    arrived.then([said(Verdict::Arrived)], [look()]);
    let given_up = world.command(resolve(Word::GiveUp));
    let reason = "nobody knows whether it arrived, and a person gave it up";
    given_up.then(
        [said(Verdict::GiveUp), dead_lettered(reason), sending(M2, 1)],
        [store(M2)],
    );
}

#[test]
fn what_waits_for_a_person_is_looked_up_whenever_the_connection_stands_anew() {
    let (mut world, _) = never_told(UnknownPolicy::Ask);
    let _ = world.unlinked(true);
    world.after(Duration::from_secs(24 * 3600)).nothing();
    world.linked().then([], [look()]);
    assert!(!world.machine.is_at_rest(&world.state));
    // One look, and the person is asked on.
    world
        .when(Input::Looked(Err(unknown("HTTP 500"))))
        .nothing();
    assert_eq!(world.wake_at, None);
    assert!(world.machine.is_at_rest(&world.state));

    world.restart();
    world.linked().then([], [look()]);
    let evidence = "the agent's history holds it";
    world.looked(idle([])).then(
        [resolved(1, Resolution::Stored, evidence), requested(M1, 1)],
        [start(M1)],
    );
}

#[test]
fn what_waits_for_a_person_is_ended_by_an_abort_or_by_another_policy() {
    let (mut world, _) = never_told(UnknownPolicy::Ask);
    let aborted_by = world.clone().command(Command::Abort);
    let asked = Event::TurnAbortAsked { message: M1 };
    aborted_by.then([asked, aborted(0)], []);

    world.adopt(SessionPolicy {
        unknown: UnknownPolicy::DeadLetter,
        ..SessionPolicy::default()
    });
    let why = "the agent does not say whether it arrived";
    let reason = format!("{why}; the policy is dead-letter");
    world.when(Input::Woke).then(
        [
            unknown_decided(Verdict::GiveUp, &reason),
            dead_lettered(why),
        ],
        [],
    );
}

#[test]
fn what_cannot_be_found_out_is_sent_again_or_given_up_where_the_policy_says_so() {
    let (world, then) = never_told(UnknownPolicy::Resend);
    let reason = format!("{NOT_TOLD}; the policy is resend");
    then.then(
        [
            unknown_decided(Verdict::Resend, &reason),
            retry(2, world.now),
            sending(M1, 2),
        ],
        [store(M1)],
    );

    let (world, then) = never_told(UnknownPolicy::DeadLetter);
    let reason = format!("{NOT_TOLD}; the policy is dead-letter");
    then.then(
        [
            unknown_decided(Verdict::GiveUp, &reason),
            dead_lettered(NOT_TOLD),
        ],
        [],
    );
    let given_up = world.state.queue.get(M1).and_then(|m| m.given_up);
    assert!(given_up.is_some_and(|given_up| given_up.unknown));
}

#[test]
fn an_agent_that_will_not_tell_is_not_asked_again() {
    let mut world = storing();
    let _ = world.when(Input::Stored(Err(unknown("the answer was lost"))));
    let reason = "HTTP 405".to_owned();
    let refused = Input::Looked(Err(CallError::RefusedForGood { reason }));
    let reason = "the agent does not say whether it arrived: HTTP 405; the policy is ask";
    world
        .when(refused)
        .then([unknown_decided(Verdict::Wait, reason)], []);
}

#[test]
fn each_kind_of_failure_has_its_own_pauses_and_its_own_end() {
    let retry_of = |attempts_max, millis| Retry {
        attempts_max,
        backoff: Backoff {
            delay_min: Duration::from_millis(millis),
            delay_max: Duration::from_millis(millis),
        },
    };
    let policy = SessionPolicy {
        retries: Retries {
            never_sent: retry_of(2, 1_000),
            for_now: retry_of(3, 10_000),
            for_good: retry_of(4, 100_000),
            unknown: retry_of(5, 1_000_000),
            retry_after_max: Duration::ZERO,
        },
        ..SessionPolicy::default()
    };
    let for_now = || CallError::RefusedForNow {
        retry_after: Some(Duration::from_secs(1_000_000)),
        reason: "no".to_owned(),
    };
    let for_good = || CallError::RefusedForGood {
        reason: "no".to_owned(),
    };
    let attempts_and_pauses = |mut fail: Box<dyn FnMut(&mut World)>| {
        let mut world = storing_under(policy.clone());
        let mut pauses = Vec::new();
        while !world
            .state
            .queue
            .get(M1)
            .expect("it is there")
            .state
            .is_settled()
        {
            fail(&mut world);
            if let Some(at) = world.wake_at {
                let pause = at.since(world.now);
                let is = |nominal: &u64| {
                    let nominal = Duration::from_secs(*nominal);
                    nominal * 3 / 4 <= pause && pause <= nominal
                };
                pauses.extend([1, 10, 100, 1000].into_iter().find(is));
                let _ = world.woken();
            }
        }
        pauses
    };
    let stored = |error: fn() -> CallError| -> Box<dyn FnMut(&mut World)> {
        Box::new(move |world| {
            let _ = world.when(Input::Stored(Err(error())));
        })
    };
    assert_eq!(attempts_and_pauses(stored(|| never_sent("no"))), [1]);
    assert_eq!(attempts_and_pauses(stored(for_now)), [10, 10]);
    assert_eq!(attempts_and_pauses(stored(for_good)), [100, 100, 100]);
    let lost = |world: &mut World| {
        let _ = world.when(Input::Stored(Err(unknown("lost"))));
        let _ = world.looked(absent());
    };
    // A first one that is proved not to have arrived is sent again at once.
    assert_eq!(attempts_and_pauses(Box::new(lost)), [1000, 1000, 1000]);
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
    // The agent may still be at making it: a moment later it is looked for once more.
    world.when(Input::Bound(Ok(None))).nothing();
    assert_eq!(
        world.wake_at,
        Some(world.now.plus(world.policy.second_look_after))
    );
    world.woken().then([], [Effect::FindSession(spec())]);
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
fn what_the_agent_forgot_before_it_was_seen_to_begin_is_sent_again() {
    let mut events = held();
    events.push(requested(M1, 1));
    let mut world = given(events);
    // The agent is there, since it says so: that needs no leave.
    world.leave = Err(world.now.plus(second()));
    world.linked().then([], [look()]);
    // It may have begun, and its trace be gone with it: that is for the policy to say.
    let evidence = "the agent's history does not hold it any more";
    world.looked(absent()).then(
        [
            Event::TurnInterrupted {
                message: M1,
                run: 1,
                answers: Vec::new(),
                evidence: evidence.to_owned(),
            },
            rerun_decided(1, Rerun::Run, "no tool had begun"),
        ],
        [look()],
    );
    world.looked(absent()).then(
        [
            resolved(1, Resolution::Absent, evidence),
            retry(2, T0),
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

#[test]
fn what_the_agent_forgot_is_not_taken_for_begun_by_a_late_frame() {
    let mut events = held();
    let (message, attempt) = (M1, 2);
    events.extend([
        resolved(
            1,
            Resolution::Absent,
            "the agent's history does not hold it",
        ),
        sending(M1, 2),
        Event::DeliveryAccepted { message, attempt },
        requested(M1, 1),
    ]);
    let mut world = given(events);
    world.leave = Err(world.now.plus(second()));
    let _ = world.linked();
    let _ = world.looked(absent());
    let _ = world.looked(absent());
    assert_eq!(world.state_of(M1), MessageState::Refused);
    let began = Observation::AnswerUpdated(answer_to(&a1(), "x1"));
    world.observed(began).nothing();
}

#[test]
fn a_message_held_over_an_earlier_opening_of_the_stream_is_looked_up_before_the_agent_is_asked_to_begin()
 {
    let mut world = storing();
    // The link is lost while the answer is on its way here.
    let _ = world.unlinked(false);
    let accepted = Event::DeliveryAccepted {
        message: M1,
        attempt: 1,
    };
    world.when(Input::Stored(Ok(()))).then([accepted], []);
    world.linked().then([], [look()]);
    world
        .looked(Report {
            newest: false,
            ..idle([])
        })
        .then([failed(0, "a newer message is in the agent's session")], []);
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
