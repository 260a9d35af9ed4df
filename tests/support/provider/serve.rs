//! The provider's HTTP server, and the playing of a step.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame as BodyFrame, Incoming};
use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use super::script::{Step, steps};
use super::wire::{self, Frame};
use super::{Journal, Outcome};

type Answer = Response<BoxBody<Bytes, io::Error>>;

/// Serves until told to stop, and then drops every connection.
pub(super) fn run(
    listener: TcpListener,
    journal: Arc<watch::Sender<Journal>>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::select! {
            () = accept(listener, journal) => {}
            _ = stopped => {}
        }
    });
}

async fn accept(listener: TcpListener, journal: Arc<watch::Sender<Journal>>) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        // What is written is to leave at once, in the pieces that it was written in.
        stream.set_nodelay(true).unwrap();
        let socket = Arc::new(stream.as_fd().try_clone_to_owned().unwrap());
        let journal = Arc::clone(&journal);
        let service = service_fn(move |request| {
            let (journal, socket) = (Arc::clone(&journal), Arc::clone(&socket));
            async move { Ok::<_, Infallible>(answer(request, journal, socket).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        // An error is a cut of the script's or a client that left: both are in the journal.
        tokio::spawn(async move { drop(connection.await) });
    }
}

async fn answer(
    request: Request<Incoming>,
    journal: Arc<watch::Sender<Journal>>,
    socket: Arc<OwnedFd>,
) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/models") => {
            let model =
                |id| json!({ "id": id, "object": "model", "created": 0, "owned_by": "fake" });
            let models = ["fake-1", "fake-small"].map(model);
            json_answer(200, &json!({ "object": "list", "data": models }))
        }
        (&Method::POST, "/v1/chat/completions") => {
            let Ok(body) = request.into_body().collect().await else {
                return error_answer(400, "the request broke off", None);
            };
            match wire::Request::parse(&body.to_bytes()) {
                Ok(request) => begin(&request, journal, socket).await,
                Err(error) => error_answer(400, &error, None),
            }
        }
        _ => error_answer(404, "no such path", None),
    }
}

/// Answers one call of the model.
async fn begin(
    request: &wire::Request,
    journal: Arc<watch::Sender<Journal>>,
    socket: Arc<OwnedFd>,
) -> Answer {
    let mut begun = None;
    journal.send_modify(|journal| begun = Some(journal.begin(request)));
    let call = begun.expect("a modification runs at once");
    let playing = Playing {
        journal,
        number: call.number,
    };

    let steps = if request.side {
        Ok(vec![Step {
            text: "Scripted title".into(),
            chunks: 1,
            ..Step::default()
        }])
    } else {
        steps(&request.prompt)
    };
    let mut steps = match steps {
        Ok(steps) => steps,
        Err(error) => {
            playing.end(Outcome::Refused(400));
            return error_answer(400, &error, None);
        }
    };
    let mut step = steps.swap_remove(request.step.min(steps.len() - 1));
    if call.attempt > step.times {
        step = Step {
            status: None,
            cut_after: None,
            hang_ms: 0,
            raw: None,
            ..step
        };
    }

    // If the client leaves meanwhile, this is dropped, and `playing` with it.
    tokio::time::sleep(Duration::from_millis(step.hang_ms)).await;
    if let Some(status) = step.status {
        playing.end(Outcome::Refused(status));
        return error_answer(status, &format!("scripted HTTP {status}"), step.retry_after);
    }
    let frames = wire::frames(&call.model, call.number, &step.text_at(call.attempt), &step);
    let (writes, body) = mpsc::channel(1);
    tokio::spawn(async move {
        let Ok(outcome) = playing.play(&step, frames, &writes).await else {
            return;
        };
        let cut = outcome == Outcome::Cut;
        // First, so that a client that saw the end finds it in the journal.
        playing.end(outcome);
        if cut {
            if step.rst {
                // With no time to linger, closing resets.
                rustix::net::sockopt::set_socket_linger(&*socket, Some(Duration::ZERO)).unwrap();
            }
            // If the client has left before, there is nothing to cut.
            let _ = writes
                .send(Err(io::Error::other("cut by the script")))
                .await;
        }
    });
    Response::builder()
        .header(CONTENT_TYPE, "text/event-stream; charset=utf-8")
        .header("cache-control", "no-cache")
        .body(
            Written {
                writes: body,
                flushing: false,
            }
            .boxed(),
        )
        .unwrap()
}

/// A call being answered.
///
/// Invariant: when it is dropped without an end, the client has gone.
struct Playing {
    journal: Arc<watch::Sender<Journal>>,
    number: u64,
}

/// Nobody reads the answer any more.
struct Gone;

impl Playing {
    async fn play(&self, step: &Step, frames: Vec<Frame>, to: &Writes) -> Result<Outcome, Gone> {
        pause(step.first_ms, to).await?;
        let mut chunks = 0;
        for frame in frames {
            if frame.is_content {
                if step.cut_after == Some(chunks) {
                    return Ok(Outcome::Cut);
                }
                if let Some(gate) = step.gate.as_ref().filter(|_| step.gate_after == chunks) {
                    self.stand_at(gate, to).await?;
                }
                if chunks > 0 {
                    pause(step.delay_ms, to).await?;
                }
                chunks += 1;
            }
            self.write(step, frame, to).await?;
        }
        // A script that wanted more chunks than there are is cut before the end of the body.
        Ok(if step.cut_after.is_some() {
            Outcome::Cut
        } else {
            Outcome::Done
        })
    }

    async fn write(&self, step: &Step, frame: Frame, to: &Writes) -> Result<(), Gone> {
        let size = step.split.unwrap_or(frame.bytes.len()).max(1);
        for start in (0..frame.bytes.len()).step_by(size) {
            let end = frame.bytes.len().min(start + size);
            to.send(Ok(frame.bytes.slice(start..end)))
                .await
                .map_err(|_| Gone)?;
        }
        if !frame.text.is_empty() {
            self.update(|call| call.sent.push_str(&frame.text));
        }
        Ok(())
    }

    async fn stand_at(&self, gate: &str, to: &Writes) -> Result<(), Gone> {
        self.update(|call| call.outcome = Outcome::AtGate(gate.into()));
        let mut journal = self.journal.subscribe();
        tokio::select! {
            _ = journal.wait_for(|journal| journal.open_gates.contains(gate)) => {}
            () = to.closed() => return Err(Gone),
        }
        self.update(|call| call.outcome = Outcome::Running);
        Ok(())
    }

    fn update(&self, change: impl FnOnce(&mut super::Call)) {
        self.journal
            .send_modify(|journal| journal.update(self.number, change));
    }

    fn end(&self, outcome: Outcome) {
        self.update(|call| call.outcome = outcome);
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        self.update(|call| {
            if matches!(call.outcome, Outcome::Running | Outcome::AtGate(_)) {
                call.outcome = Outcome::ClientGone;
            }
        });
    }
}

async fn pause(milliseconds: u64, to: &Writes) -> Result<(), Gone> {
    if milliseconds == 0 {
        return Ok(());
    }
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(milliseconds)) => Ok(()),
        () = to.closed() => Err(Gone),
    }
}

type Writes = mpsc::Sender<io::Result<Bytes>>;

/// A body that is flushed after each write.
///
/// Without that, a cut would take back what was not yet on its way, and writes would be joined.
struct Written {
    writes: mpsc::Receiver<io::Result<Bytes>>,
    flushing: bool,
}

impl Body for Written {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<BodyFrame<Bytes>>>> {
        if self.flushing {
            // A connection flushes when its body has nothing for the moment.
            self.flushing = false;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let write = ready!(self.writes.poll_recv(context));
        self.flushing = true;
        Poll::Ready(write.map(|write| write.map(BodyFrame::data)))
    }
}

fn error_answer(status: u16, message: &str, retry_after: Option<u64>) -> Answer {
    let kind = match status {
        401 => "authentication_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    let error = json!({ "error": { "type": kind, "code": kind, "message": message } });
    let mut answer = json_answer(status, &error);
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    answer
}

fn json_answer(status: u16, body: &Value) -> Answer {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json")
        .body(
            Full::from(body.to_string())
                .map_err(|never| match never {})
                .boxed(),
        )
        .unwrap()
}
