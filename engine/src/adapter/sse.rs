//! Frames off a response's bytes: server-sent events, bounded before they are parsed.
//!
//! The bytes are cut into whole frames first, so that memory is bounded by the longest frame that is taken. Nearly
//! all frames are one line of data, which is taken as it stands; what the lines of any other mean stays with
//! `eventsource-stream`. That parser alone would copy the rest of a chunk for each frame in it, and look at
//! an unfinished line again with every chunk.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use eventsource_stream::{EventStream, EventStreamError};
use futures_util::FutureExt as _;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};

use super::{Frame, FrameStream, StreamError, StreamItem};

/// The frames in a stream of bytes, however it is cut. Ends with `None` where the bytes end cleanly, and after an error.
///
/// `frame_bytes_max` bounds each frame, its line ends and comments included: a longer one ends the stream with
/// [`StreamError::FrameTooLong`].
#[must_use]
pub fn frames<S, E>(bytes: S, frame_bytes_max: usize) -> FrameStream
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: fmt::Display + 'static,
{
    Frames {
        bytes: bytes
            .map(|chunk| {
                chunk.map_err(|error| StreamError::Broken {
                    reason: error.to_string(),
                })
            })
            .boxed(),
        cut: Cut {
            chunk: Bytes::new(),
            held: BytesMut::new(),
            scan: Scan::default(),
            frame_bytes_max,
        },
        heard: false,
        ended: false,
    }
    .boxed()
}

/// What the caller polls: parsed frames, and a sign of life for bytes that bring none.
struct Frames {
    bytes: BoxStream<'static, Result<Bytes, StreamError>>,
    cut: Cut,
    /// Whether a chunk came since the last item.
    heard: bool,
    ended: bool,
}

impl Stream for Frames {
    type Item = Result<StreamItem, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        loop {
            match this
                .cut
                .next()
                .transpose()
                .map(|frame| frame.and_then(data))
            {
                Some(Ok(None)) => {}
                Some(Ok(Some(data))) => {
                    this.heard = false;
                    return Poll::Ready(Some(Ok(StreamItem::Frame(Frame { data }))));
                }
                Some(Err(error)) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => match this.bytes.as_mut().poll_next(cx) {
                    Poll::Ready(Some(Ok(chunk))) => {
                        this.heard = true;
                        this.cut.chunk = chunk;
                    }
                    // What is held was never finished: by the standard it is no frame.
                    Poll::Ready(end) => {
                        this.ended = true;
                        return Poll::Ready(end.map(|end| end.map(|_| StreamItem::Alive)));
                    }
                    Poll::Pending if std::mem::take(&mut this.heard) => {
                        return Poll::Ready(Some(Ok(StreamItem::Alive)));
                    }
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }
}

/// The data of a whole frame; `None` where it has none, as a comment.
fn data(frame: Bytes) -> Result<Option<String>, StreamError> {
    // A whole frame has whole characters.
    let text = std::str::from_utf8(&frame).map_err(|_| StreamError::NotText)?;
    let line = text.strip_prefix("data: ");
    let line = line.and_then(|line| line.strip_suffix("\n\n"));
    if let Some(line) = line
        && memchr::memchr2(b'\n', b'\r', line.as_bytes()).is_none()
        && !line.is_empty()
    {
        return Ok(Some(line.to_owned()));
    }
    let mut events = EventStream::new(stream::iter([Ok(frame)]));
    match events.next().now_or_never().flatten() {
        None => Ok(None),
        Some(Ok(event)) => Ok(Some(event.data)),
        Some(Err(error)) => Err(match error {
            EventStreamError::Transport(error) => error,
            EventStreamError::Utf8(_) => StreamError::NotText,
            EventStreamError::Parser(error) => StreamError::Broken {
                reason: format!("no server-sent events: {:?}", error.code),
            },
        }),
    }
}

/// Cuts bytes behind each blank line.
struct Cut {
    /// What is left of the last chunk, not looked at yet.
    chunk: Bytes,
    /// The beginning of a frame whose end has not come.
    ///
    /// Invariant: `held.len() <= frame_bytes_max`.
    held: BytesMut,
    scan: Scan,
    frame_bytes_max: usize,
}

impl Cut {
    /// The next frame that is whole; `None` where another chunk is wanted.
    fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        if self.chunk.is_empty() {
            return Ok(None);
        }
        let end = self.scan.frame_end(&self.chunk);
        let length = self.held.len() + end.unwrap_or(self.chunk.len());
        if length > self.frame_bytes_max {
            return Err(StreamError::FrameTooLong {
                limit: self.frame_bytes_max,
            });
        }
        let Some(end) = end else {
            self.held.extend_from_slice(&self.chunk);
            self.chunk = Bytes::new();
            return Ok(None);
        };
        let last = self.chunk.split_to(end);
        // Behind a lone CR the parser would wait for an LF. One more line end at the end of a
        // frame says nothing, whether or not the LF comes too.
        let lone_cr = last.ends_with(b"\r");
        if self.held.is_empty() && !lone_cr {
            return Ok(Some(last));
        }
        self.held.extend_from_slice(&last);
        if lone_cr {
            self.held.extend_from_slice(b"\n");
        }
        // A new buffer each time, so that one long frame does not hold its memory.
        Ok(Some(std::mem::take(&mut self.held).freeze()))
    }
}

/// Where in the lines the bytes stand. Lines end with LF, CR LF or CR; a blank one ends a frame.
struct Scan {
    line_is_blank: bool,
    /// A chunk ended with CR: an LF at the beginning of the next belongs to it.
    after_cr: bool,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            line_is_blank: true,
            after_cr: false,
        }
    }
}

impl Scan {
    /// Where the first frame in `bytes` ends, behind its blank line; `None` where it does not.
    fn frame_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        if std::mem::take(&mut self.after_cr) && bytes.first() == Some(&b'\n') {
            at = 1;
        }
        while let Some(length) = memchr::memchr2(b'\n', b'\r', &bytes[at..]) {
            let blank = self.line_is_blank && length == 0;
            let mut end = at + length + 1;
            if bytes[end - 1] == b'\r' {
                match bytes.get(end) {
                    Some(b'\n') => end += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            self.line_is_blank = true;
            if blank {
                return Some(end);
            }
            at = end;
        }
        if at < bytes.len() {
            self.line_is_blank = false;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::opencode::captured;
    use proptest::prelude::*;

    /// All items of `chunks`, each chunk arriving on its own.
    fn items(chunks: &[&[u8]], limit: usize) -> Vec<Result<StreamItem, StreamError>> {
        let chunks: Vec<_> = chunks.iter().map(|c| Bytes::copy_from_slice(c)).collect();
        // Pending once before each chunk, as a socket is.
        let mut waited = false;
        let mut chunks = chunks.into_iter();
        let bytes = futures_util::stream::poll_fn(move |cx| {
            waited = !waited;
            if waited {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(chunks.next().map(Ok::<_, std::convert::Infallible>))
        });
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(frames(bytes, limit).collect())
    }

    type Item = Result<StreamItem, StreamError>;

    const TOO_LONG: Item = Err(StreamError::FrameTooLong { limit: 12 });

    #[expect(
        clippy::unnecessary_wraps,
        reason = "compared with items, which may be errors"
    )]
    fn frame(data: &str) -> Item {
        Ok(StreamItem::Frame(Frame {
            data: data.to_owned(),
        }))
    }

    fn frames_only(chunks: &[&[u8]]) -> Vec<Result<StreamItem, StreamError>> {
        let mut items = items(chunks, usize::MAX);
        items.retain(|item| *item != Ok(StreamItem::Alive));
        items
    }

    #[test]
    fn frames_come_whole_and_other_bytes_are_a_sign_of_life() {
        assert_eq!(
            items(
                &[
                    b"data: one\n\ndata: tw",
                    b"o\n\n: heartbeat\n\n",
                    b": heartbeat\n\n",
                    b"data: lost"
                ],
                usize::MAX
            ),
            // What is partial behind "one" came in its chunk, as the comment behind "two" did in its.
            [
                frame("one"),
                frame("two"),
                Ok(StreamItem::Alive),
                Ok(StreamItem::Alive),
            ]
        );
    }

    #[test]
    fn a_frame_over_the_bound_ends_the_stream_before_it_is_kept() {
        let exact = b"data: 12345\n\n";
        assert_eq!(items(&[exact], exact.len()), [frame("12345")]);
        assert_eq!(items(&[exact], 12), [TOO_LONG]);
        assert_eq!(
            items(&[b"data: ok\n\n", b"data: 1", b"23456789", b"\n\n"], 12),
            [frame("ok"), Ok(StreamItem::Alive), TOO_LONG]
        );
    }

    #[test]
    fn bytes_that_are_no_text_end_the_stream() {
        assert_eq!(
            items(&[b"data: \xff\n\n", b"data: x\n\n"], 100),
            [Err(StreamError::NotText)]
        );
    }

    #[test]
    fn a_broken_transport_is_told_from_a_clean_end() {
        let bytes = futures_util::stream::iter([
            Ok(Bytes::from_static(b"data: x\n\n")),
            Err("connection reset"),
        ]);
        let items: Vec<_> = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(frames(bytes, 100).collect());
        let broken = StreamError::Broken {
            reason: "connection reset".into(),
        };
        assert_eq!(items, [frame("x"), Err(broken)]);
    }

    /// Split characters in every chunk: recorded 61 bytes at a time.
    #[test]
    fn a_recorded_stream_gives_the_same_frames_in_any_pieces() {
        let body = captured::body(captured::UTF8);
        let whole = frames_only(&[&body]);
        assert!(whole.len() > 20);
        for size in [1, 2, 3, 61, 4096] {
            let pieces: Vec<_> = body.chunks(size).collect();
            assert_eq!(frames_only(&pieces), whole, "in pieces of {size}");
        }
    }

    /// What the parser makes of bytes in one piece, by itself.
    fn parsed(bytes: &[u8]) -> Vec<Item> {
        let bytes = stream::iter([Ok::<_, StreamError>(Bytes::copy_from_slice(bytes))]);
        let events = EventStream::new(bytes).collect::<Vec<_>>().now_or_never();
        let events = events.expect("nothing to wait for").into_iter();
        events
            .map(|event| frame(&event.expect("it is text").data))
            .collect()
    }

    proptest! {
        /// Cut into frames, or taken as it stands, a stream says what the parser says that it does.
        #[test]
        fn frames_are_what_the_parser_makes_of_them(
            lines in prop::collection::vec(
                ("(data: ?|data|: ?|id: |event: x|dat)[a-zé🙂: ]{0,6}", "\n|\r\n|\n\n|\r\n\r\n|\n\r\n"),
                0..24,
            ),
        ) {
            let text: String = lines.iter().flat_map(|(line, end)| [line.as_str(), end]).collect();
            prop_assert_eq!(frames_only(&[text.as_bytes()]), parsed(text.as_bytes()));
        }

        /// Any cutting of any bytes gives what the bytes in one piece give.
        #[test]
        fn any_chunking_gives_the_same_frames(
            lines in prop::collection::vec(
                ("(data: |data:|: |id: |event: x|)[a-zé漢🙂 ]{0,6}", "\n|\r\n|\r|\n\n|\r\n\r\n|\r\r"),
                0..24,
            ),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let text: String = lines.iter().flat_map(|(line, end)| [line.as_str(), end]).collect();
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(frames_only(&pieces), frames_only(&[bytes]));
        }
    }
}
