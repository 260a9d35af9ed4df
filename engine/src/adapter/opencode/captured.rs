//! Recorded responses, for tests.

pub(crate) const PLAIN: &[u8] = include_bytes!("fixtures/plain.event.http");
pub(crate) const TOOL_ONCE: &[u8] = include_bytes!("fixtures/tool-permission-once.event.http");
pub(crate) const TOOL_REJECTED: &[u8] =
    include_bytes!("fixtures/tool-permission-reject.event.http");
pub(crate) const PROVIDER_CUT: &[u8] = include_bytes!("fixtures/llm-cut-mid-stream.event.http");
pub(crate) const ABORTED: &[u8] = include_bytes!("fixtures/abort-mid-stream.event.http");
pub(crate) const SUBAGENT: &[u8] = include_bytes!("fixtures/subagent.event.http");
pub(crate) const DISPOSED: &[u8] = include_bytes!("fixtures/dispose-mid-run.global.http");
pub(crate) const QUESTION_ANSWERED: &[u8] =
    include_bytes!("fixtures/question-answered.global.http");
pub(crate) const QUESTION_REJECTED: &[u8] =
    include_bytes!("fixtures/question-rejected.global.http");
pub(crate) const UTF8: &[u8] = include_bytes!("fixtures/utf8-split.event.http");

/// The body of a recorded response: its head and the framing of its chunks taken away.
pub(crate) fn body(response: &[u8]) -> Vec<u8> {
    let head = find(response, b"\r\n\r\n").expect("a response head");
    let mut rest = &response[head + 4..];
    let mut body = Vec::new();
    while let Some(line) = find(rest, b"\r\n") {
        let size = std::str::from_utf8(&rest[..line]).expect("a chunk's size");
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        let chunk = &rest[line + 2..];
        // A server that was killed leaves its last chunk unfinished.
        body.extend_from_slice(&chunk[..size.min(chunk.len())]);
        if size == 0 || chunk.len() < size + 2 {
            break;
        }
        rest = &chunk[size + 2..];
    }
    body
}

/// The data of each frame in a recorded response.
pub(crate) fn frames(response: &[u8]) -> Vec<crate::adapter::Frame> {
    String::from_utf8(body(response))
        .expect("text")
        .split("\n\n")
        .filter_map(|block| block.strip_prefix("data: "))
        .map(|data| crate::adapter::Frame {
            data: data.to_owned(),
        })
        .collect()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}
