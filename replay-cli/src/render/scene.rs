//! What a person is told beside the answer while a session runs, or is played again.

use std::time::Duration;

use recount_engine::machine::connection::UNWANTED;
use recount_projections::turn::{Asks, Turn, TurnState};
use recount_projections::{Message, WaitsFor};
use recount_store::{ConnectionState, Event, Recorded, Rerun, Target, ToolOutcome, Verdict};

use super::{Look, event, text, time};

/// How many columns of a tool's input or output are shown.
const DETAIL_WIDTH: usize = 60;

/// The line for an event; none where it is no news to a person.
pub(crate) fn aside(recorded: &Recorded, look: &Look) -> Option<String> {
    let bad = |text: String| Some(look.bad(&format!("! {}", text::one_line(&text))));
    let warn = |text: String| Some(look.warn(&format!("! {}", text::one_line(&text))));
    let dim = |text: String| Some(look.dim(&format!("· {}", text::one_line(&text))));
    match &recorded.event {
        Event::ConnectionOpened { agent, target } => dim(match target {
            Target::Url(url) => format!("{agent} at {url}"),
            Target::Managed { program, directory } => format!(
                "{}, to be started in {directory}",
                program.as_deref().unwrap_or(agent)
            ),
        }),
        Event::ServerSpawned { pid, .. } => dim(format!("server started, pid {pid}")),
        Event::ServerExited { how } => warn(format!("server gone: {how}")),
        Event::ConnectFailed { attempt, reason } => {
            warn(format!("connecting failed, try {attempt}: {reason}"))
        }
        Event::StreamLost { reason } if reason == UNWANTED => {
            dim("connection let go: nobody needs it".to_owned())
        }
        Event::StreamLost { reason } => warn(format!("connection lost: {reason}")),
        Event::ConnectionChanged {
            to: ConnectionState::Connected,
            ..
        } => Some(look.good("· connected")),
        Event::ReconnectScheduled { attempt, at } => dim(format!(
            "trying again in {} (try {attempt})",
            time::span(at.since(recorded.at))
        )),
        Event::CircuitOpened { failures: 0, until } => bad(format!(
            "it comes and goes: no try for {}",
            time::span(until.since(recorded.at))
        )),
        Event::CircuitOpened { failures, until } => bad(format!(
            "{failures} tries in a row failed: none for {}",
            time::span(until.since(recorded.at))
        )),
        Event::ProbeFailed { reason } => warn(format!("server does not answer: {reason}")),
        Event::ProbeRecovered => dim("server answers again".to_owned()),
        Event::ServerStopDecided { reason } => dim(format!("stopping the server: {reason}")),
        Event::DeliveryRejected { reason, .. } => warn(format!("not delivered: {reason}")),
        Event::DeliveryUnknown { reason, .. } => {
            warn(format!("unknown whether it was delivered: {reason}"))
        }
        Event::DeliveryResolved { .. } => {
            dim(format!("looked up {}", event::summary(&recorded.event)))
        }
        Event::RetryScheduled { attempt, at, .. } => dim(match at.since(recorded.at) {
            Duration::ZERO => format!("sending again (attempt {attempt})"),
            pause => format!("sending again in {} (attempt {attempt})", time::span(pause)),
        }),
        Event::ToolCallStarted { tool, input, .. } => {
            let input = event::json(input);
            dim(format!("tool {tool} {}", text::clip(&input, DETAIL_WIDTH)))
        }
        Event::ToolCallEnded {
            outcome, output, ..
        } => {
            let output = text::one_line(output);
            let output = text::clip(&output, DETAIL_WIDTH);
            match outcome {
                ToolOutcome::Completed => dim(format!("tool completed: {output}")),
                ToolOutcome::Failed => warn(format!("tool failed: {output}")),
                ToolOutcome::Lost => warn("tool lost: the agent died while it ran".to_owned()),
            }
        }
        Event::PermissionAsked { action, detail, .. } => {
            warn(format!("the agent asks for permission: {action}: {detail}"))
        }
        Event::PermissionAnswered { answer, .. } => {
            dim(format!("answered: {}", event::answer(*answer)))
        }
        Event::AgentRetried {
            attempt, reason, ..
        } => warn(format!(
            "the agent tries again, attempt {attempt} failed: {reason}"
        )),
        Event::AgentErrorReported { name, reason, .. } => {
            warn(format!("the agent reports {name}: {reason}"))
        }
        Event::TurnInterrupted { evidence, .. } => {
            warn(format!("the agent died in its turn: {evidence}"))
        }
        Event::RerunDecided { rerun, reason, .. } => match rerun {
            Rerun::Run => dim(format!("running it again: {reason}")),
            Rerun::Wait => warn(format!("waiting for a person: {reason}")),
            Rerun::GiveUp => bad(format!("given up: {reason}")),
        },
        Event::QuestionAsked { prompts, .. } => {
            warn(format!("the agent asks: {}", event::prompts(prompts)))
        }
        Event::QuestionAnswered { answers, .. } => dim(match answers {
            Some(answers) => format!("answered: {}", event::answers_of(answers)),
            None => "refused to answer".to_owned(),
        }),
        Event::QuestionExpired { reason, .. } => warn(reason.clone()),
        Event::UnknownDecided {
            verdict, reason, ..
        } => match verdict {
            Verdict::Resend => warn(format!("sending it again: {reason}")),
            Verdict::Arrived => dim(format!("taken as arrived: {reason}")),
            Verdict::Wait => warn(format!("waiting for a person: {reason}")),
            Verdict::GiveUp => bad(format!("given up: {reason}")),
        },
        Event::TaskPanicked { reason } => bad(format!("recount failed and began anew: {reason}")),
        Event::SessionForked { from, at, .. } => {
            dim(format!("goes on from session {from} as of event {at}"))
        }
        Event::AgentSessionForked { .. } => {
            dim("the agent goes on from a copy of its session".to_owned())
        }
        Event::AgentForkRefused { reason } => {
            dim(format!("the agent makes no copy of its session: {reason}"))
        }
        Event::ContextAdded { .. } => {
            dim("what was said before goes along with this message, as text".to_owned())
        }
        Event::TurnAbortAsked { .. } => dim("aborting".to_owned()),
        Event::TurnAborted { .. } => warn("aborted".to_owned()),
        Event::TurnStalled { reason, .. } => warn(format!("stalled: {reason}")),
        Event::TurnFailed { reason, .. } => bad(format!("failed: {reason}")),
        Event::MessageDeadLettered { reason, .. } => bad(format!("given up: {reason}")),
        Event::MessageCancelled { .. } => dim("taken back before it was sent".to_owned()),
        Event::StreamCut { before, .. } => dim(event::cut(*before)),
        Event::Unknown { .. } => dim("an event of a newer recount".to_owned()),
        // What goes as it should, and what follows from the lines above.
        Event::SessionOpened { .. }
        | Event::MessageQueued { .. }
        | Event::MessageRequeued { .. }
        | Event::MessageSteered { .. }
        | Event::QuestionSettled { .. }
        | Event::CapabilitiesFound { .. }
        | Event::PolicyAdopted { .. }
        | Event::SessionClosed
        | Event::AgentSessionRequested { .. }
        | Event::AgentSessionBound { .. }
        | Event::AgentSessionLost { .. }
        | Event::DeliveryStarted { .. }
        | Event::DeliveryAccepted { .. }
        | Event::TurnRequested { .. }
        | Event::TurnStarted { .. }
        | Event::OutputAppended { .. }
        | Event::OutputReplaced { .. }
        | Event::OutputOrdered { .. }
        | Event::PermissionSettled { .. }
        | Event::TurnCompleted { .. }
        | Event::FrameUnrecognised { .. }
        | Event::ServerStartDecided { .. }
        | Event::ServerReady { .. }
        | Event::StreamOpened
        | Event::GapFound { .. }
        | Event::GapFilled { .. }
        | Event::ConnectionChanged { .. }
        | Event::CircuitHalfOpened
        | Event::CircuitClosed
        | Event::EngineStarted { .. }
        | Event::RecoveryStarted { .. }
        | Event::RecoveryFinished { .. }
        | Event::EngineStopped => None,
    }
}

/// The commands that settle what a message waits for, with what they do; none where it waits for nobody.
pub(crate) fn settled_by(message: &Message, turn: Option<&Turn>) -> Vec<(String, &'static str)> {
    let at_work = |turn: &&Turn| matches!(turn.state, TurnState::Requested | TurnState::Running);
    let mut questions = turn
        .filter(at_work)
        .into_iter()
        .flat_map(Turn::open_questions);
    let asks = questions.next().map(|question| &question.asks);
    // A word is about this message, a policy about all that wait.
    let (words, policies): (&[_], &[_]) = match message.waits_for {
        Some(WaitsFor::Rerun) => (
            &[
                ("rerun", "says: run it again"),
                ("give-up", "says: give it up"),
            ],
            &[
                ("--rerun auto", "runs again all that wait"),
                ("--rerun never", "gives up all that wait"),
            ],
        ),
        Some(WaitsFor::Outcome) => (
            &[
                ("arrived", "says: the agent has it"),
                (
                    "resend",
                    "says: send it again, and the agent may have it twice",
                ),
                (
                    "dead-letter",
                    "says: give it up, and the agent may have it all the same",
                ),
            ],
            &[
                ("--unknown resend", "sends again all that wait"),
                ("--unknown dead-letter", "gives up all that wait"),
            ],
        ),
        None => match asks {
            Some(Asks::Permission { .. }) => (
                &[],
                &[
                    ("--permission allow", "says yes"),
                    ("--permission reject", "says no"),
                ],
            ),
            Some(Asks::Words(_)) => (
                &[],
                &[
                    ("", "asks you on the terminal"),
                    ("--permission reject", "refuses to answer"),
                ],
            ),
            None => (&[], &[]),
        },
    };
    let id = message.id;
    let words = words.iter();
    let words = words.map(|(word, what)| (format!("recount resolve {id} {word}"), *what));
    let policies = policies.iter().map(|(flag, what)| {
        let command = format!("recount recover {flag}");
        (command.trim_end().to_owned(), *what)
    });
    words.chain(policies).collect()
}
