//! Output: each piece recorded once, holes said and closed, the agent's own record holding in the end.

use super::*;

/// A turn whose answer `x1` was seen to begin, in this opening of the stream.
fn begun() -> World {
    let mut world = given_linked(running());
    world
        .observed(Observation::AnswerUpdated(answer_to(&a1(), "x1")))
        .nothing();
    world
}

#[test]
fn deltas_are_gathered_for_a_moment_and_recorded_once() {
    let mut world = begun();
    world.observed(part_opened("x1", "p")).nothing();
    for text in ["Hel", "lo ", "you"] {
        world.observed(delta("x1", "p", text)).nothing();
    }
    assert_eq!(world.wake_at, Some(T0.plus(world.policy.gather)));
    world
        .woken()
        .then([output(1, "p", Placement::End, "Hello you")], []);
    // Another part ends what is gathered, before its own first piece.
    world.observed(delta("x1", "p", "!")).nothing();
    world
        .observed(part_opened("x1", "q"))
        .then([output(1, "p", Placement::End, "!")], []);
    world.observed(delta("x1", "q", "And")).nothing();
    // And so does its own end, which says nothing new.
    world
        .observed(part_ended("x1", "q", "And"))
        .then([output(1, "q", Placement::End, "And")], []);
    world
        .observed(part_ended("x1", "p", "Hello you!"))
        .nothing();
    assert_eq!(world.transcript().turns[0].text(), "Hello you!And");
}

#[test]
fn an_event_names_the_last_frame_that_told_of_it() {
    let mut world = begun();
    world.told_by(Some(1), part_opened("x1", "p")).nothing();
    world.told_by(Some(2), delta("x1", "p", "Hel")).nothing();
    world.told_by(Some(3), delta("x1", "p", "lo")).nothing();
    assert_eq!(world.woken().frames(), [Some(3)]);
    world.told_by(Some(4), delta("x1", "p", "!")).nothing();
    // What was gathered is not what this frame told, and both are recorded because of it.
    let asked = world.told_by(Some(6), Observation::PermissionAsked(permission("q")));
    assert_eq!(asked.frames(), [Some(4), Some(6)]);
    // One that was not kept cannot be named, and no older one is named for it.
    world.told_by(Some(7), delta("x1", "p", "?")).nothing();
    world.told_by(None, delta("x1", "p", "?")).nothing();
    assert_eq!(world.woken().frames(), [None]);
    // What a look finds was told by no frame.
    world.told_by(Some(9), Observation::Idle).then([], [look()]);
    let end = with(finished("x1", "stop"), [whole("p", "Hello!??")]);
    assert_eq!(world.looked(idle([end])).frames(), [None]);
}

#[test]
fn much_output_is_not_gathered_for_long() {
    let mut world = begun();
    let long = "x".repeat(world.policy.gather_bytes);
    world.observed(part_opened("x1", "p")).nothing();
    world
        .observed(delta("x1", "p", &long))
        .then([output(1, "p", Placement::End, &long)], []);
}

#[test]
fn a_hole_in_the_stream_is_said_and_then_closed() {
    let mut world = begun();
    world.observed(part_opened("x1", "p")).nothing();
    world.observed(delta("x1", "p", "one ")).nothing();
    world
        .unlinked(false)
        .then([output(1, "p", Placement::End, "one ")], []);
    world.linked().then([], [look()]);
    // Nothing shows yet what the part is: the look that is under way will.
    world.observed(delta("x1", "p", "lost ")).nothing();
    world
        .looked(busy([with(answer_to(&a1(), "x1"), [open_part("p")])]))
        .nothing();
    world.observed(delta("x1", "p", "three")).nothing();
    world
        .woken()
        .then([output(1, "p", Placement::AfterHole, "three")], []);
    assert_eq!(world.transcript().turns[0].text(), "one ");
    let then = world.observed(part_ended("x1", "p", "one two lost three"));
    then.then([output(1, "p", Placement::IntoHole, "two lost ")], []);
    assert_eq!(then.provenances(), [Provenance::Backfilled]);
    assert_eq!(world.transcript().turns[0].text(), "one two lost three");
}

#[test]
fn what_was_missed_is_a_hole_too_and_is_looked_for_at_once() {
    let mut world = begun();
    world.observed(part_opened("x1", "p")).nothing();
    world.observed(delta("x1", "p", "one ")).nothing();
    world
        .observed(Observation::Missed)
        .then([output(1, "p", Placement::End, "one ")], [look()]);
    world.observed(delta("x1", "p", "three")).nothing();
    world
        .woken()
        .then([output(1, "p", Placement::AfterHole, "three")], []);
    // What is missed while a look is under way may not be in its report.
    world.observed(Observation::Missed).nothing();
    let reported = || busy([with(answer_to(&a1(), "x1"), [open_part("p")])]);
    world.looked(reported()).then([], [look()]);
    world.looked(reported()).nothing();
    let then = world.observed(part_ended("x1", "p", "one two three"));
    then.then([output(1, "p", Placement::IntoHole, "two ")], []);
    assert_eq!(world.transcript().turns[0].text(), "one two three");
}

#[test]
fn a_part_that_was_missed_comes_from_the_look() {
    let mut world = given(running());
    let _ = world.linked();
    let items = [
        whole("p", "all of it"),
        AnswerItem::Tool(call("c", done("ok"))),
    ];
    let then = world.looked(idle([with(finished("x1", "stop"), items)]));
    then.then(
        [
            output(1, "p", Placement::End, "all of it"),
            tool_started(1, "c"),
            tool_ended(1, "c", ToolOutcome::Completed, "ok"),
            completed(M1, 1),
        ],
        [],
    );
    assert_eq!(then.provenances()[..3], [Provenance::Backfilled; 3]);
}

#[test]
fn a_part_that_comes_to_light_after_later_ones_is_put_in_its_place() {
    let mut world = begun();
    world.observed(Observation::Missed).then([], [look()]);
    let _ = world.observed(tool("x1", "c", done("ok")));
    let _ = world.observed(part_opened("x1", "q"));
    let _ = world.observed(part_ended("x1", "q", "behind it"));
    let said = || {
        let call = AnswerItem::Tool(call("c", done("ok")));
        [whole("p", "in front, "), call, whole("q", "behind it")]
    };
    let then = world.looked(busy([with(answer_to(&a1(), "x1"), said())]));
    let order = Event::OutputOrdered {
        message: M1,
        run: 1,
        items: ["p", "c", "q"].map(str::to_owned).to_vec(),
    };
    then.then([output(1, "p", Placement::End, "in front, "), order], []);
    assert_eq!(then.provenances(), [Provenance::Backfilled; 2]);
    assert_eq!(world.transcript().turns[0].text(), "in front, behind it");
    // It is in its place from then on.
    world.observed(Observation::Idle).then([], [look()]);
    world
        .looked(idle([with(finished("x1", "stop"), said())]))
        .then([completed(M1, 1)], []);
}

#[test]
fn the_agents_own_record_holds_where_it_differs() {
    let mut world = begun();
    let _ = world.observed(part_opened("x1", "p"));
    let _ = world.observed(delta("x1", "p", "wrong"));
    world.observed(part_ended("x1", "p", "right")).then(
        [
            output(1, "p", Placement::End, "wrong"),
            replaced(1, "p", "right"),
        ],
        [],
    );
    let transcript = world.transcript();
    let part = transcript.turns[0].run().part("p").expect("it is there");
    assert_eq!(
        (part.text.as_str(), part.withdrawn.as_deref()),
        ("right", Some("wrong"))
    );
}

#[test]
fn what_the_agent_began_anew_by_itself_is_taken_back_at_its_end() {
    let mut world = begun();
    let _ = world.observed(part_opened("x1", "p"));
    let _ = world.observed(delta("x1", "p", "half"));
    let _ = world.observed(part_opened("x1", "q"));
    let _ = world.observed(delta("x1", "q", "whole"));
    let _ = world.observed(part_ended("x1", "q", "whole"));
    let _ = world.observed(Observation::Idle);
    world
        .looked(idle([with(
            finished("x1", "stop"),
            [open_part("p"), whole("q", "whole")],
        )]))
        .then([replaced(1, "p", ""), completed(M1, 1)], []);
    assert_eq!(world.transcript().turns[0].text(), "whole");
}

#[test]
fn text_behind_a_hole_is_taken_back_with_its_part_and_else_stays_a_hole() {
    let behind_a_hole = || {
        let mut world = given(running());
        let _ = world.linked();
        let _ = world.looked(busy([with(answer_to(&a1(), "x1"), [open_part("p")])]));
        let _ = world.observed(delta("x1", "p", "end"));
        world
            .woken()
            .then([output(1, "p", Placement::AfterHole, "end")], []);
        world
    };
    // The agent finished without it.
    let mut world = behind_a_hole();
    let _ = world.observed(Observation::Idle);
    let answers = [open_part("p"), whole("q", "whole")];
    world
        .looked(idle([with(finished("x1", "stop"), answers)]))
        .then(
            [
                replaced(1, "p", ""),
                output(1, "q", Placement::End, "whole"),
                completed(M1, 1),
            ],
            [],
        );
    let turn = &world.transcript().turns[0];
    assert_eq!(
        (turn.text().as_str(), turn.run().has_hole()),
        ("whole", false)
    );
    // The agent died, and kept nothing of it: what is behind the hole is all there is, and says so.
    let mut world = behind_a_hole();
    let _ = world.observed(Observation::Idle);
    let cut_off = || idle([with(answer_to(&a1(), "x1"), [open_part("p")])]);
    let _ = world.looked(cut_off());
    let _ = world.woken();
    let _ = world.looked(cut_off());
    let turn = &world.transcript().turns[0];
    assert_eq!(
        (turn.runs[0].text().as_str(), turn.runs[0].has_hole()),
        ("", true)
    );
}

#[test]
fn a_look_that_is_ahead_of_the_stream_doubles_nothing() {
    let mut world = begun();
    let _ = world.observed(part_opened("x1", "p"));
    let _ = world.observed(delta("x1", "p", "one "));
    let _ = world.woken();
    // The look shows the whole part, while its last deltas are still on their way here.
    world.observed(Observation::Idle).then([], [look()]);
    let answer = with(finished("x1", "tool-calls"), [whole("p", "one two")]);
    let then = world.looked(busy([answer]));
    // Nobody knows whether they would have come.
    assert_eq!(then.provenances(), [Provenance::Backfilled]);
    then.then([output(1, "p", Placement::End, "two")], []);
    world.observed(delta("x1", "p", "two")).nothing();
    world.observed(part_ended("x1", "p", "one two")).nothing();
}

#[test]
fn a_part_that_a_look_showed_before_the_stream_did_is_not_doubled() {
    let mut world = begun();
    world.observed(Observation::Idle).then([], [look()]);
    let answer = with(finished("x1", "tool-calls"), [whole("p", "one two")]);
    let _ = world.looked(busy([answer]));
    for late in [
        part_opened("x1", "p"),
        delta("x1", "p", "one "),
        delta("x1", "p", "two"),
        part_ended("x1", "p", "one two"),
    ] {
        world.observed(late).nothing();
    }
}

#[test]
fn late_frames_of_the_turn_before_do_no_harm() {
    let mut world = begun();
    world.record([queued(M2)]);
    let _ = world.observed(part_opened("x1", "p"));
    let _ = world.observed(delta("x1", "p", "one "));
    let _ = world.woken();
    let _ = world.observed(Observation::Idle);
    let end = with(finished("x1", "stop"), [whole("p", "one two")]);
    let _ = world.looked(idle([end]));
    let _ = world.when(Input::Stored(Ok(())));
    world.when(Input::Started(Ok(()))).nothing();
    assert_eq!(world.state_of(M2), MessageState::Requested);
    for late in [
        delta("x1", "p", "two"),
        part_ended("x1", "p", "one two"),
        tool("x1", "c", done("ok")),
        part_opened("x1", "q"),
        delta("x1", "q", "three"),
        Observation::AnswerUpdated(finished("x1", "stop")),
    ] {
        world.observed(late).nothing();
        assert_eq!(world.state_of(M2), MessageState::Requested);
    }
    world.observed(Observation::Idle).then([], [look_for(M2)]);
    world.looked(idle([])).nothing();
    world
        .observed(Observation::AnswerUpdated(answer_to(&a2(), "x2")))
        .then([started(M2, 1)], []);
}

#[test]
fn an_answer_to_a_message_that_was_taken_back_is_not_taken_for_the_next_ones() {
    // The agent holds it, and somebody else has the agent go on with what it holds.
    let mut world = given([
        opened(),
        bound(),
        queued(M1),
        sending(M1, 1),
        accepted(M1),
        Event::TurnAbortAsked { message: M1 },
        aborted(0),
    ]);
    world.linked().nothing();
    let before = Observation::AnswerUpdated(answer_to(&a1(), "x1"));
    world.observed(before).nothing();
    world.record([queued(M2), sending(M2, 1), accepted(M2), requested(M2, 1)]);
    let at_work = Observation::AnswerUpdated(answer_to(&a1(), "x2"));
    world.observed(at_work).then([], [look_for(M2)]);
    for answer in ["x1", "x2"] {
        let said = format!("{answer}p");
        for observation in [
            part_opened(answer, &said),
            delta(answer, &said, "words"),
            part_ended(answer, &said, "words"),
            tool(answer, "c", done("ok")),
        ] {
            world.observed(observation).nothing();
        }
    }
    world
        .observed(Observation::AnswerUpdated(answer_to(&a2(), "x3")))
        .then([started(M2, 1)], []);
}

#[test]
fn what_an_older_opening_of_the_stream_said_is_passed_over() {
    let mut world = begun();
    let _ = world.observed(part_opened("x1", "p"));
    let _ = world.unlinked(false);
    // It does not make the connection stand again either.
    world.observed(Observation::Idle).nothing();
    let _ = world.linked();
    world
        .when(Input::Observed {
            epoch: 1,
            frame: None,
            observation: part_opened("x1", "p"),
            from_child: false,
        })
        .nothing();
    let _ = world.looked(busy([with(answer_to(&a1(), "x1"), [open_part("p")])]));
    world.observed(delta("x1", "p", "new")).nothing();
    world
        .woken()
        .then([output(1, "p", Placement::AfterHole, "new")], []);
}

#[test]
fn one_of_each_kind_of_unrecognised_frame_is_kept() {
    let mut world = begun();
    let frame = || Observation::Unrecognised {
        kind: "new".to_owned(),
        frame: Json(b"{}".to_vec()),
    };
    world.observed(frame()).then(
        [Event::FrameUnrecognised {
            kind: "new".to_owned(),
            frame: Json(b"{}".to_vec()),
        }],
        [],
    );
    world.observed(frame()).nothing();
}
