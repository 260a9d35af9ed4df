//! One event as a line: for people, and as JSON.

use std::borrow::Cow;
use std::io;

use recount_engine::machine::connection::UNWANTED;
use recount_projections::turn::Asks;
use recount_store::{
    Class, ConnectionState, Event, EventId, Frame, FrameNumber, Json, MessageId, OutputKind,
    PermissionAnswer, Placement, Position, Provenance, Recorded, Refusal, Rerun, Resolution, Seq,
    StreamId, Target, ToolOutcome, Verdict,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::time::Days;
use super::{Look, frame, text, time};

/// How many columns the longest name of a type takes, of those that are often there.
const TYPE_WIDTH: usize = 21;

/// With fewer columns than this, whole ids would leave no room for what events say.
const NARROW: usize = 120;

/// How much of an id is shown then.
const ID_SHORT: usize = 6;

/// Prints events as lines, with the day where it changes.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    days: Days,
}

impl Lines {
    /// The event as lines: itself, and the day before it where it is another.
    pub(crate) fn next(&mut self, recorded: &Recorded, look: &Look) -> String {
        self.after_day(recorded, line(recorded, look), look)
    }

    /// The same, of one of many sessions: with the id of its session or connection, or, where there is little room,
    /// as much of it as will do to name it. Leaves so many columns at the end for what is said beside it.
    pub(crate) fn next_of_many(
        &mut self,
        recorded: &Recorded,
        beside: usize,
        look: &Look,
    ) -> String {
        let of = match recorded.stream {
            StreamId::Engine => "engine".to_owned(),
            StreamId::Session(id) => id.to_string(),
            StreamId::Connection(id) => id.to_string(),
        };
        let of = match look.width {
            Some(width) if width < NARROW => &of[..of.len().min(ID_SHORT)],
            _ => &*format!("{of:16}"),
        };
        let line = line_of(recorded, Some(of), &look.beside(beside));
        self.after_day(recorded, line, look)
    }

    fn after_day(&mut self, recorded: &Recorded, line: String, look: &Look) -> String {
        match self.days.next(recorded.at, look) {
            Some(day) => format!("{day}\n{line}"),
            None => line,
        }
    }
}

/// The event as one line: time, number, type, and what it says.
pub(crate) fn line(recorded: &Recorded, look: &Look) -> String {
    line_of(recorded, None, look)
}

/// The event as one line: time, whose it is if that is to be said, number, type, and what it says.
fn line_of(recorded: &Recorded, of: Option<&str>, look: &Look) -> String {
    let mut clock = time::clock(recorded.at, &look.zone);
    if let Some(of) = of {
        clock = format!("{clock}  {of}");
    }
    let number = match recorded.stream {
        StreamId::Session(_) => recorded.seq.to_string(),
        StreamId::Connection(_) | StreamId::Engine => format!("~{}", recorded.seq),
    };
    let name = name(&recorded.event);
    let mut says = summary(&recorded.event);
    match recorded.provenance {
        Provenance::Live => {}
        known => says = format!("({}) {says}", known.name()),
    }
    let says = text::one_line(&says);
    let says = match look.width {
        Some(width) => {
            let before = text::width(&clock) + 1 + number.len().max(5) + 2;
            let before = before + name.len().max(TYPE_WIDTH) + 2;
            // Below some width there is no sense in it; the terminal wraps.
            text::clip(&says, width.saturating_sub(before).max(12))
        }
        None => says,
    };
    let padded = format!("{name:TYPE_WIDTH$}");
    let name = match (weight(&recorded.event), recorded.class) {
        (Weight::Bad, _) => look.bad(&padded),
        (Weight::Warning, _) => look.warn(&padded),
        (Weight::Good, _) => look.good(&padded),
        (Weight::Plain, Class::Asked) => look.bold(&padded),
        (Weight::Plain, Class::Observed | Class::Decided) => padded,
    };
    format!("{} {number:>5}  {name}  {says}", look.dim(&clock))
        .trim_end()
        .to_owned()
}

/// How much an event asks for a person's eye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// No more than any other.
    Plain,
    /// It went well.
    Good,
    /// A person may have to look at it.
    Warning,
    /// It went wrong.
    Bad,
}

/// How much this event does.
pub(crate) fn weight(event: &Event) -> Weight {
    match event {
        Event::TurnCompleted { .. } => Weight::Good,
        Event::StreamLost { reason } if reason == UNWANTED => Weight::Plain,
        Event::DeliveryRejected { .. }
        | Event::DeliveryUnknown { .. }
        | Event::AgentRetried { .. }
        | Event::TurnInterrupted { .. }
        | Event::TurnStalled { .. }
        | Event::ConnectFailed { .. }
        | Event::StreamLost { .. }
        | Event::ProbeFailed { .. }
        | Event::GapFound { .. }
        | Event::PermissionAsked { .. }
        | Event::QuestionAsked { .. }
        | Event::QuestionExpired { .. }
        | Event::TurnAborted { .. }
        | Event::RerunDecided {
            rerun: Rerun::Wait, ..
        }
        | Event::UnknownDecided {
            verdict: Verdict::Wait,
            ..
        }
        | Event::Unknown { .. } => Weight::Warning,
        Event::MessageDeadLettered { .. }
        | Event::TurnFailed { .. }
        | Event::AgentErrorReported { .. }
        | Event::ServerExited { .. }
        | Event::TaskPanicked { .. }
        | Event::CircuitOpened { .. } => Weight::Bad,
        _ => Weight::Plain,
    }
}

/// The name of an event's type, as its JSON gives it.
pub(crate) fn name(event: &Event) -> String {
    match event {
        Event::Unknown {
            type_number,
            type_version,
            ..
        } => format!("Unknown #{type_number} v{type_version}"),
        event => own_json(event, |name, _| name.to_owned()).unwrap_or_default(),
    }
}

/// What an event says, in a line for people.
pub(crate) fn summary(event: &Event) -> String {
    match event {
        Event::SessionOpened {
            agent,
            directory,
            model,
            title,
            ..
        } => {
            let model = model.as_ref().map(|m| format!(" with {m}"));
            let title = title.as_ref().map(|t| format!(": {t}"));
            format!(
                "{agent} in {directory}{}{}",
                model.unwrap_or_default(),
                title.unwrap_or_default()
            )
        }
        Event::MessageQueued { message, key, text } => {
            let key = key.as_ref().map(|key| format!(" key {key:?}"));
            format!("{}{} \"{text}\"", short(*message), key.unwrap_or_default())
        }
        Event::MessageCancelled { message }
        | Event::TurnAbortAsked { message }
        | Event::MessageSteered { message }
        | Event::ContextAdded { message } => short(*message),
        Event::PermissionAnswered {
            permission, answer, ..
        }
        | Event::PermissionSettled {
            permission,
            answer: Some(answer),
            ..
        } => format!("{} ({permission})", self::answer(*answer)),
        Event::SessionClosed
        | Event::StreamOpened
        | Event::ProbeRecovered
        | Event::CircuitHalfOpened
        | Event::CircuitClosed
        | Event::EngineStopped => String::new(),
        Event::SessionForked {
            from,
            at,
            agent_session,
            through,
            context,
        } => {
            let copied = agent_session.as_ref().zip(through.as_ref());
            let copied = copied.map(|(session, through)| format!(", {session} through {through}"));
            let context = context.as_ref().map(|context| {
                let bytes = text::bytes(context.len() as u64);
                format!(", {bytes} as text")
            });
            format!(
                "from {from} at {at}{}{}",
                copied.unwrap_or_default(),
                context.unwrap_or_default()
            )
        }
        Event::AgentSessionBound { agent_session }
        | Event::AgentSessionForked { agent_session }
        | Event::AgentSessionLost { agent_session }
        | Event::GapFilled { agent_session } => agent_session.clone(),
        Event::DeliveryAccepted { message, attempt } => {
            format!("{} at attempt {attempt}", short(*message))
        }
        Event::DeliveryRejected {
            message,
            attempt,
            refusal,
            reason,
        } => {
            let how = match refusal {
                Refusal::NeverSent => "never sent".to_owned(),
                Refusal::ForNow { retry_after: None } => "for now".to_owned(),
                Refusal::ForNow {
                    retry_after: Some(millis),
                } => format!("for {millis} ms"),
                Refusal::ForGood => "for good".to_owned(),
            };
            format!("{} at attempt {attempt}, {how}: {reason}", short(*message))
        }
        Event::DeliveryUnknown {
            message,
            attempt,
            reason,
        } => format!("{} at attempt {attempt}: {reason}", short(*message)),
        Event::DeliveryResolved {
            message,
            resolution,
            evidence,
            ..
        } => {
            let found = match resolution {
                Resolution::Stored => "the agent holds it",
                Resolution::Absent => "the agent does not hold it",
            };
            format!("{}: {found}: {evidence}", short(*message))
        }
        Event::TurnStarted { message, run } | Event::TurnRequested { message, run } => {
            format!("{}{}", short(*message), nth_run(*run))
        }
        Event::OutputAppended {
            kind,
            placement,
            text,
            ..
        } => {
            let kind = match kind {
                OutputKind::Text => "",
                OutputKind::Reasoning => "(reasoning) ",
            };
            let placement = match placement {
                Placement::End => "",
                Placement::AfterHole => "(after a hole) ",
                Placement::IntoHole => "(fills the hole) ",
            };
            format!("{kind}{placement}\"{text}\"")
        }
        Event::OutputOrdered { items, .. } => {
            format!("in the agent's order: {}", items.join(", "))
        }
        Event::OutputReplaced { kind, text, .. } => {
            let kind = match kind {
                OutputKind::Text => "",
                OutputKind::Reasoning => "(reasoning) ",
            };
            format!("{kind}now reads \"{text}\"")
        }
        Event::ToolCallStarted {
            tool, input, call, ..
        } => format!("{tool} {} ({call})", json(input)),
        Event::ToolCallEnded {
            call,
            outcome,
            output,
            ..
        } => {
            let outcome = match outcome {
                ToolOutcome::Completed => "completed",
                ToolOutcome::Failed => "failed",
                ToolOutcome::Lost => "lost",
            };
            format!("{outcome} ({call}) \"{output}\"")
        }
        Event::PermissionAsked {
            permission,
            action,
            detail,
            ..
        } => format!("{action}: {detail} ({permission})"),
        Event::PermissionSettled {
            permission,
            answer: None,
            ..
        } => permission.clone(),
        Event::AgentRetried {
            attempt,
            reason,
            next,
            ..
        } => {
            let next = next.map(|next| format!(", again at {}", time::rfc3339(next)));
            format!(
                "the agent's attempt {attempt} failed: {reason}{}",
                next.unwrap_or_default()
            )
        }
        Event::AgentErrorReported { name, reason, .. } => format!("{name}: {reason}"),
        Event::TurnCompleted {
            message,
            run,
            finish,
        } => {
            format!("{}{}: {finish}", short(*message), nth_run(*run))
        }
        Event::TurnFailed {
            message,
            run,
            reason,
        }
        | Event::TurnStalled {
            message,
            run,
            reason,
        } => format!("{}{}: {reason}", short(*message), nth_run(*run)),
        Event::TurnAborted { message, run } => format!("{}{}", short(*message), nth_run(*run)),
        Event::TurnInterrupted {
            message,
            run,
            evidence,
            ..
        } => format!("{}{}: {evidence}", short(*message), nth_run(*run)),
        Event::FrameUnrecognised { kind, frame } => format!("{kind}: {}", json(frame)),
        Event::AgentSessionRequested { marker } => format!("marked {marker}"),
        Event::DeliveryStarted {
            message,
            attempt,
            agent_message,
        } => format!("{} attempt {attempt} as {agent_message}", short(*message)),
        Event::RetryScheduled {
            message,
            attempt,
            at,
        } => format!(
            "{} attempt {attempt} not before {}",
            short(*message),
            time::rfc3339(*at)
        ),
        Event::MessageDeadLettered { message, reason } => {
            format!("{}: {reason}", short(*message))
        }
        Event::RerunDecided {
            message,
            run,
            rerun,
            reason,
        } => {
            let what = match rerun {
                Rerun::Run => "runs again",
                Rerun::Wait => "waits for a person",
                Rerun::GiveUp => "is given up",
            };
            format!("{}{} {what}: {reason}", short(*message), nth_run(*run))
        }
        Event::ConnectionOpened { agent, target } => match target {
            Target::Url(url) => format!("{agent} at {url}"),
            Target::Managed { program, directory } => {
                let program = program.as_deref().unwrap_or(agent);
                format!("{program}, started in {directory}")
            }
        },
        Event::ServerSpawned { pid, .. } => format!("pid {pid}"),
        Event::ServerReady { url, version } => format!("{url} version {version}"),
        Event::ServerExited { how } => how.clone(),
        Event::ConnectFailed { attempt, reason } => format!("try {attempt}: {reason}"),
        Event::AgentForkRefused { reason }
        | Event::StreamLost { reason }
        | Event::ProbeFailed { reason }
        | Event::ServerStopDecided { reason }
        | Event::TaskPanicked { reason } => reason.clone(),
        Event::GapFound {
            agent_session,
            from,
            to,
        } => match (from, to) {
            (0, 0) => agent_session.clone(),
            (from, to) => format!("{agent_session}: {from} to {to}"),
        },
        Event::ConnectionChanged { from, to } => {
            format!("{} to {}", connection_state(*from), connection_state(*to))
        }
        Event::ServerStartDecided { mark, port } => format!("port {port}, marked {mark}"),
        Event::ReconnectScheduled { attempt, at } => {
            format!("try {attempt} not before {}", time::rfc3339(*at))
        }
        Event::CircuitOpened { failures: 0, until } => {
            format!("it comes and goes, until {}", time::rfc3339(*until))
        }
        Event::CircuitOpened { failures, until } => {
            format!("{failures} failures, until {}", time::rfc3339(*until))
        }
        Event::EngineStarted { version, pid } => format!("version {version}, pid {pid}"),
        Event::RecoveryStarted { sessions } => text::count(*sessions, "session"),
        Event::RecoveryFinished {
            sessions,
            resolved,
            completed,
            dead_lettered,
            waiting,
        } => format!(
            "{}, {resolved} resolved, {completed} completed, {dead_lettered} dead-lettered, {waiting} waiting",
            text::count(*sessions, "session")
        ),
        Event::StreamCut { before, .. } => cut(*before),
        Event::MessageRequeued { message, again } => {
            format!("{} again, as {}", short(*message), short(*again))
        }
        Event::QuestionAsked {
            question, prompts, ..
        } => format!("{} ({question})", self::prompts(prompts)),
        Event::QuestionAnswered {
            question, answers, ..
        }
        | Event::QuestionSettled {
            question, answers, ..
        } => match answers {
            Some(answers) => format!("{} ({question})", answers_of(answers)),
            None => question.clone(),
        },
        Event::QuestionExpired {
            question, reason, ..
        } => format!("{reason} ({question})"),
        Event::UnknownDecided {
            message,
            attempt,
            verdict,
            reason,
        } => {
            let what = match verdict {
                Verdict::Wait => "waits for a person",
                Verdict::Resend => "is sent again",
                Verdict::GiveUp => "is given up",
                Verdict::Arrived => "is taken as arrived",
            };
            format!("{} attempt {attempt} {what}: {reason}", short(*message))
        }
        Event::CapabilitiesFound { capabilities } => capabilities.join(", "),
        Event::PolicyAdopted { policy } => json(policy),
        Event::Unknown { payload, .. } => hex(payload),
    }
}

/// The words for a stream that lost its front.
pub(crate) fn cut(before: Seq) -> String {
    format!("the events before number {before} were cut")
}

/// The word for a connection's state.
pub(crate) const fn connection_state(state: ConnectionState) -> &'static str {
    match state {
        ConnectionState::Disconnected => "disconnected",
        ConnectionState::Connecting => "connecting",
        ConnectionState::Connected => "connected",
    }
}

/// The words for an answer to a question of the agent's.
pub(crate) const fn answer(answer: PermissionAnswer) -> &'static str {
    match answer {
        PermissionAnswer::Once => "yes, once",
        PermissionAnswer::Always => "yes, always",
        PermissionAnswer::Reject => "no",
    }
}

/// What a question asks, in a line.
pub(crate) fn prompts(prompts: &Json) -> String {
    match prompts.read() {
        Some(prompts) => Asks::Words(prompts).to_string(),
        None => json(prompts),
    }
}

/// The texts that answer a question, in a line: those of one prompt with commas, those of several with slashes.
pub(crate) fn answers(answers: &[Vec<String>]) -> String {
    let each: Vec<String> = answers.iter().map(|texts| texts.join(", ")).collect();
    each.join(" / ")
}

/// The same of an event's JSON; `null` is a refusal.
pub(crate) fn answers_of(json: &Json) -> String {
    match json.read::<Option<Vec<Vec<String>>>>() {
        Some(Some(given)) => answers(&given),
        Some(None) => "refused".to_owned(),
        None => self::json(json),
    }
}

/// JSON of an agent's, in a line.
pub(crate) fn json(Json(bytes): &Json) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The beginning of a message's id: enough to tell it from the others on the screen.
pub(crate) fn short(message: MessageId) -> String {
    message.to_string()[..6].to_owned()
}

/// Which run, where it is not the first.
fn nth_run(run: u32) -> String {
    match run {
        0 | 1 => String::new(),
        run => format!(" run {run}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The event as a line of JSON, without a line end.
///
/// # Errors
///
/// Where it cannot be said in JSON.
pub(crate) fn json_line(recorded: &Recorded, told_by: Option<&Frame>) -> io::Result<String> {
    json_line_beside(recorded, told_by, &Map::new())
}

/// The same, with what a view has to say beside it.
///
/// # Errors
///
/// Where it cannot be said in JSON.
pub(crate) fn json_line_beside(
    recorded: &Recorded,
    told_by: Option<&Frame>,
    beside: &Map<String, Value>,
) -> io::Result<String> {
    #[derive(Serialize)]
    struct Line<'a> {
        position: Position,
        stream: String,
        seq: Seq,
        at: String,
        cause: Option<Position>,
        class: &'static str,
        provenance: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<EventId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        frame: Option<FrameNumber>,
        #[serde(skip_serializing_if = "Option::is_none")]
        received: Option<Cow<'a, str>>,
        r#type: &'a str,
        data: &'a RawValue,
        #[serde(flatten)]
        beside: &'a Map<String, Value>,
    }

    let none = RawValue::from_string("{}".to_owned())?;
    let line = own_json(&recorded.event, |r#type, data| {
        serde_json::to_string(&Line {
            position: recorded.position,
            stream: recorded.stream.to_string(),
            seq: recorded.seq,
            at: time::rfc3339(recorded.at),
            cause: recorded.cause,
            class: recorded.class.name(),
            provenance: recorded.provenance.name(),
            id: recorded.id,
            frame: recorded.frame,
            received: told_by.and_then(frame::received),
            r#type,
            data: data.unwrap_or(&none),
            beside,
        })
    })??;
    // An agent's JSON is kept as it sent it, maybe in lines. Between tokens they mean nothing, and inside
    // of strings there are none.
    if line.contains(['\n', '\r']) {
        return Ok(line.replace(['\n', '\r'], " "));
    }
    Ok(line)
}

/// The event as a value of JSON.
///
/// # Errors
///
/// Where it cannot be said in JSON.
pub(crate) fn json_value(recorded: &Recorded) -> io::Result<Value> {
    Ok(serde_json::from_str(&json_line(recorded, None)?)?)
}

/// What an event holds: each member of its data and its value, a text as it is and all else as JSON.
pub(crate) fn data(event: &Event) -> Vec<(String, String)> {
    let members: serde_json::Map<String, serde_json::Value> = own_json(event, |_, data| {
        data.and_then(|data| serde_json::from_str(data.get()).ok())
    })
    .ok()
    .flatten()
    .unwrap_or_default();
    let told = |(name, value)| match value {
        serde_json::Value::String(text) => (name, text),
        value => {
            let json = serde_json::to_string_pretty(&value);
            (name, json.unwrap_or_default())
        }
    };
    members.into_iter().map(told).collect()
}

/// Looks at the name and the data that an event gives itself in JSON.
fn own_json<T>(
    event: &Event,
    look: impl FnOnce(&str, Option<&RawValue>) -> T,
) -> serde_json::Result<T> {
    #[derive(Deserialize)]
    struct Tagged<'a> {
        r#type: &'a str,
        #[serde(borrow)]
        data: Option<&'a RawValue>,
    }
    let own = serde_json::to_string(event)?;
    let Tagged { r#type, data } = serde_json::from_str(&own)?;
    Ok(look(r#type, data))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use recount_store::Hash;

    use super::*;
    use crate::render::fixture::{connection_event, message, plain, session_event, story};

    /// On a narrow terminal ids are short and every line fits, whatever is said beside it.
    #[test]
    fn of_many_sessions_there_is_room_for_what_is_said() {
        let told = |width, beside: &str| {
            let look = Look {
                width: Some(width),
                ..plain()
            };
            let event = session_event(
                2,
                Event::AgentErrorReported {
                    message: message(),
                    name: "APIError".to_owned(),
                    reason: "the model failed. ".repeat(20),
                },
            );
            let mut lines = Lines::default();
            let line = lines.next_of_many(&event, beside.len(), &look);
            let line = format!("{}{beside}", line.lines().last().unwrap_or_default());
            assert_eq!(text::width(&line), width);
            line
        };
        assert_eq!(
            told(80, ""),
            "09:14:05.000  081040     2  AgentErrorReported     APIError: the model failed. …"
        );
        assert_eq!(
            told(80, "  (turn took 6 h)"),
            "09:14:05.000  081040     2  AgentErrorReported     APIError: t…  (turn took 6 h)"
        );
        assert!(told(120, "").contains("  081040g2081040g2  "));
    }

    #[test]
    fn a_story_reads_line_by_line() {
        let mut lines = Lines::default();
        let look = plain();
        let told: Vec<String> = story()
            .iter()
            .map(|event| lines.next(event, &look))
            .collect();
        expect![[r#"
            2026-11-22 UTC
            09:14:04.000     1  SessionOpened          opencode in /home/project with test/model
            09:14:05.000     2  MessageQueued          040g20 key "build-17" "Why did it fail?\nBe brief."
            09:14:06.000    ~1  ConnectionOpened       opencode, started in /home/project
            09:14:07.000    ~2  ServerSpawned          pid 4242
            09:14:08.000    ~3  ServerReady            http://127.0.0.1:4101 version 1.18.3
            09:14:09.000    ~4  ConnectionChanged      connecting to connected
            09:14:10.000     3  AgentSessionBound      ses_1
            09:14:11.000     4  DeliveryStarted        040g20 attempt 1 as msg_1
            09:14:12.000     5  DeliveryAccepted       040g20 at attempt 1
            09:14:13.000     6  TurnRequested          040g20
            09:14:14.000     7  TurnStarted            040g20
            09:14:15.000     8  OutputAppended         "Let me look.\nIt"
            09:14:16.000     9  ToolCallStarted        bash {"command":"make"} (call_1)
            09:14:17.000    ~5  StreamLost             the stream broke: connection reset
            09:14:18.000    ~6  ConnectionChanged      connected to disconnected
            09:14:19.000    ~7  ServerExited           signal: 9 (SIGKILL)
            09:14:20.000    ~8  ReconnectScheduled     try 1 not before 2026-11-22T09:14:20.000000Z
            09:14:21.000    10  ToolCallEnded          lost (call_1) ""
            09:14:22.000    11  TurnInterrupted        040g20: its process is gone
            09:14:23.000    12  RerunDecided           040g20 waits for a person: a tool had begun: bash"#]].assert_eq(&told.join("\n"));
    }

    #[test]
    fn a_line_keeps_to_the_width_and_obeys_nobody() {
        let event = Event::StreamLost {
            reason: "\u{1b}[2J and more\nthan fits into a line".to_owned(),
        };
        let look = Look {
            width: Some(70),
            ..plain()
        };
        let line = line(&connection_event(4, event), &look);
        expect![[r#"09:14:07.000    ~4  StreamLost             \u{1b}[2J and more\nthan f…"#]]
            .assert_eq(&line);
        assert_eq!(text::width(&line), 70);
    }

    #[test]
    fn json_has_the_agreed_members_in_one_line() {
        let mut recorded = session_event(7, Event::SessionClosed);
        recorded.cause = Some(Position(6));
        expect![[r#"{"position":7,"stream":"session/081040g2081040g2","seq":7,"at":"2026-11-22T09:14:10.000000Z","cause":6,"class":"asked","provenance":"live","type":"SessionClosed","data":{}}"#]].assert_eq(&json_line(&recorded, None).expect("it can be said"));
        let mut cut = session_event(
            7,
            Event::StreamCut {
                before: Seq(5),
                hash: Hash([0xab; 32]),
            },
        );
        cut.id = Some(EventId::from_random(0xcd));
        cut.frame = Some(FrameNumber(3));
        expect![[r#"{"position":7,"stream":"session/081040g2081040g2","seq":7,"at":"2026-11-22T09:14:10.000000Z","cause":null,"class":"asked","provenance":"live","id":"000000000000000000000000000000cd","frame":3,"type":"StreamCut","data":{"before":5,"hash":"abababababababababababababababababababababababababababababababab"}}"#]].assert_eq(&json_line(&cut, None).expect("it can be said"));
        assert_eq!(summary(&cut.event), "the events before number 5 were cut");
        // What an agent sent in lines, and a number that no float holds.
        let tool = Event::ToolCallStarted {
            message: message(),
            run: 1,
            call: "c".to_owned(),
            tool: "bash".to_owned(),
            input: Json(b"{\n  \"n\": 12345678901234567890\n}".to_vec()),
        };
        expect![[r#"{"position":8,"stream":"session/081040g2081040g2","seq":8,"at":"2026-11-22T09:14:11.000000Z","cause":null,"class":"observed","provenance":"live","type":"ToolCallStarted","data":{"message":"040g2081040g2081","run":1,"call":"c","tool":"bash","input":{   "n": 12345678901234567890 }}}"#]].assert_eq(&json_line(&session_event(8, tool), None).expect("it can be said"));
    }

    #[test]
    fn what_this_build_does_not_know_is_shown_as_it_stands() {
        let unknown = Event::Unknown {
            type_number: 999,
            type_version: 2,
            payload: vec![0, 0xab, 0xff],
        };
        expect!["09:14:04.000     1  Unknown #999 v2        00abff"]
            .assert_eq(&line(&session_event(1, unknown), &plain()));
    }
}
