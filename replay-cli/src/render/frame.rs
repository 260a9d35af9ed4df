//! Frames as they were received, as lines: for people, and as JSON.

use std::borrow::Cow;

use recount_store::{Frame, FrameContent, FrameNumber};
use serde::Serialize;

use super::{Look, text, time};

/// Where the names of events begin, so that what stands under one begins there too.
const INDENT: &str = "                    ";

/// A frame as a line: time, number, connection, and the frame.
pub(crate) fn line(frame: &Frame, look: &Look) -> String {
    let clock = time::clock(frame.at, &look.zone);
    let before = format!("{:>5}  {}", frame.number, frame.connection);
    let room = |width: usize| width.saturating_sub(text::width(&clock) + before.len() + 3);
    let says = match &frame.content {
        FrameContent::Received(bytes) => cut(bytes, look.width.map(room)),
        FrameContent::Skipped(frames) => {
            let frames = text::count(u64::from(*frames), "frame");
            format!("({frames} came and could not, or should not, be kept)")
        }
    };
    format!("{} {before}  {says}", look.dim(&clock))
}

/// The frame of this number as a line that stands under the event that came from it.
pub(crate) fn under_event(number: FrameNumber, frame: Option<&Frame>, look: &Look) -> String {
    let before = format!("frame {number}");
    let room = |width: usize| width.saturating_sub(INDENT.len() + before.len() + 2);
    let says = match frame.and_then(Frame::bytes) {
        Some(bytes) => cut(bytes, look.width.map(room)),
        None => "(not there any more)".to_owned(),
    };
    look.dim(&format!("{INDENT}{before}  {says}"))
}

/// A frame as a line of JSON.
pub(crate) fn json_line(frame: &Frame) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Line<'a> {
        frame: FrameNumber,
        at: String,
        connection: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        received: Option<Cow<'a, str>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        skipped: Option<u32>,
    }

    serde_json::to_string(&Line {
        frame: frame.number,
        at: time::rfc3339(frame.at),
        connection: frame.connection.to_string(),
        received: received(frame),
        skipped: match frame.content {
            FrameContent::Received(_) => None,
            FrameContent::Skipped(frames) => Some(frames),
        },
    })
}

/// The text that was received; adapters take no other.
pub(crate) fn received(frame: &Frame) -> Option<Cow<'_, str>> {
    frame.bytes().map(String::from_utf8_lossy)
}

/// Bytes as text in one line of so many columns.
fn cut(bytes: &[u8], room: Option<usize>) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text::one_line(&text);
    match room {
        // Below some width there is no sense in it; the terminal wraps.
        Some(room) => text::clip(&line, room.max(20)).into_owned(),
        None => line.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::render::fixture::{at, connection, plain};

    fn frame(content: FrameContent) -> Frame {
        Frame {
            number: FrameNumber(17),
            connection: connection(),
            at: at(1),
            content,
        }
    }

    fn received(text: &str) -> Frame {
        frame(FrameContent::Received(text.as_bytes().to_vec()))
    }

    #[test]
    fn a_frame_is_a_line_and_no_terminal_obeys_it() {
        let strange = received("{\"text\":\"a\nb\u{1b}[2J\"}");
        expect![[r#"09:14:04.000    17  0c1g60r30c1g60r3  {"text":"a\nb\u{1b}[2J"}"#]]
            .assert_eq(&line(&strange, &plain()));
        expect![[r#"                    frame 17  {"text":"a\nb\u{1b}[2J"}"#]]
            .assert_eq(&under_event(FrameNumber(17), Some(&strange), &plain()));
        expect![[r#"{"frame":17,"at":"2026-11-22T09:14:04.000000Z","connection":"0c1g60r30c1g60r3","received":"{\"text\":\"a\nb\u001b[2J\"}"}"#]]
            .assert_eq(&json_line(&strange).expect("it can be said"));
    }

    #[test]
    fn a_frame_is_cut_to_the_terminal() {
        let mut look = plain();
        look.width = Some(70);
        let long = received(&"漢".repeat(100));
        assert_eq!(text::width(&line(&long, &look)), 69);
        let under = under_event(FrameNumber(17), Some(&long), &look);
        assert_eq!(text::width(&under), 69);
        look.width = Some(10);
        assert_eq!(line(&long, &look).chars().last(), Some('…'));
    }

    #[test]
    fn what_is_not_there_is_said() {
        let skipped = frame(FrameContent::Skipped(3));
        expect!["09:14:04.000    17  0c1g60r30c1g60r3  (3 frames came and could not, or should not, be kept)"]
            .assert_eq(&line(&skipped, &plain()));
        expect![[r#"{"frame":17,"at":"2026-11-22T09:14:04.000000Z","connection":"0c1g60r30c1g60r3","skipped":3}"#]]
            .assert_eq(&json_line(&skipped).expect("it can be said"));
        expect!["                    frame 17  (not there any more)"].assert_eq(&under_event(
            FrameNumber(17),
            None,
            &plain(),
        ));
    }
}
