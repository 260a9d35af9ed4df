//! What OpenCode's frames mean: a pure function of one frame.
//!
//! Kinds and orders as seen with OpenCode 1.18.33.

use recount_store::{Json, PermissionAnswer};
use serde::Deserialize;

use super::wire::{
    Delta, DeltaFrame, Envelope, InSession, Meaning, MessageChanged, PartChanged, Payload,
    PermissionAsked, PermissionReplied, QuestionAsked, QuestionReplied, Role, SessionChanged,
    SessionFailed, StatusChanged,
};
use crate::adapter::{
    Activity, AgentError, AnswerItem, Frame, Observation, Permission, Question, Translated,
};

/// How much of a frame that is not known is kept, in bytes: enough to see what it was.
const UNRECOGNISED_BYTES_MAX: usize = 4 << 10;

/// What a frame says.
pub(super) fn translate(frame: &Frame) -> Translated {
    if let Ok(DeltaFrame { payload }) = serde_json::from_str(&frame.data) {
        return piece(payload.properties);
    }
    let payload = serde_json::from_str::<Envelope<'_>>(&frame.data)
        .ok()
        .and_then(Envelope::payload);
    let Some(payload) = payload else {
        return unrecognised("unreadable", None, frame);
    };
    known(&payload).unwrap_or_else(|| unrecognised(&payload.kind, session_of(&payload), frame))
}

/// What a frame of a known kind says; `None` where the kind, or the shape of it, is not known.
fn known(payload: &Payload<'_>) -> Option<Translated> {
    let said = |session: String, observation| {
        Some(Translated {
            session: Some(session),
            observation,
        })
    };
    match &*payload.kind {
        "message.part.delta" => properties(payload).map(piece),
        "sync" => {
            let sync = payload.sync.as_ref()?;
            let observation = Observation::Counted { number: sync.seq };
            said(sync.aggregate.clone().into_owned(), observation)
        }
        "message.part.updated" => {
            let PartChanged { session, mut part } = properties(payload)?;
            let session = session.or(part.session.take());
            let answer = std::mem::take(&mut part.message);
            let observation = match part.meaning() {
                Meaning::Unknown => return None,
                Meaning::Nothing => Observation::Ignored,
                Meaning::Item(AnswerItem::Tool(call)) => Observation::Tool { answer, call },
                Meaning::Item(AnswerItem::Output(part)) if part.ended => {
                    Observation::PartEnded { answer, part }
                }
                Meaning::Item(AnswerItem::Output(part)) => Observation::PartOpened {
                    answer,
                    part: part.id,
                    kind: part.kind,
                },
            };
            Some(Translated {
                session,
                observation,
            })
        }
        "message.updated" => {
            let MessageChanged { session, mut info } = properties(payload)?;
            Some(Translated {
                session: session.or(info.session.take()),
                observation: match info.role {
                    Role::User => Observation::Ignored,
                    Role::Assistant => Observation::AnswerUpdated(info.into()),
                },
            })
        }
        "session.status" => {
            let changed: StatusChanged = properties(payload)?;
            said(
                changed.session,
                match changed.status.into() {
                    Activity::Idle => Observation::Idle,
                    Activity::Busy => Observation::Busy,
                    Activity::Retrying {
                        attempt,
                        reason,
                        next,
                    } => Observation::Retrying {
                        attempt,
                        reason,
                        next,
                    },
                },
            )
        }
        "session.idle" => Some(Translated {
            session: properties::<InSession>(payload)?.session,
            observation: Observation::Idle,
        }),
        "session.error" => {
            let failed: SessionFailed = properties(payload)?;
            let error = failed.error.map(AgentError::from);
            Some(Translated {
                session: failed.session,
                observation: Observation::Error {
                    name: error.as_ref().map_or("", |error| &error.name).to_owned(),
                    reason: error.map(|error| error.reason).unwrap_or_default(),
                },
            })
        }
        "session.created" => {
            let SessionChanged { info } = properties(payload)?;
            said(
                info.id,
                info.parent
                    .map_or(Observation::Ignored, |parent| Observation::ChildOf {
                        parent,
                    }),
            )
        }
        "permission.asked" => {
            let asked: PermissionAsked = properties(payload)?;
            let session = asked.session.clone();
            said(
                session,
                Observation::PermissionAsked(Permission::from(asked)),
            )
        }
        "permission.replied" => {
            let replied: PermissionReplied = properties(payload)?;
            said(
                replied.session,
                Observation::PermissionReplied {
                    permission: replied.request,
                    answer: replied.reply.as_deref().and_then(reply),
                },
            )
        }
        "question.asked" => {
            let asked: QuestionAsked = properties(payload)?;
            let session = asked.session.clone();
            said(session, Observation::QuestionAsked(Question::from(asked)))
        }
        "question.replied" | "question.rejected" => {
            let replied: QuestionReplied = properties(payload)?;
            said(
                replied.session,
                Observation::QuestionReplied {
                    question: replied.request,
                    answers: replied.answers,
                },
            )
        }
        "server.connected" => Some(Translated {
            session: None,
            observation: Observation::Connected,
        }),
        "server.heartbeat" => Some(Translated {
            session: None,
            observation: Observation::Heartbeat,
        }),
        kind if means_nothing(kind) => Some(Translated {
            session: session_of(payload),
            observation: Observation::Ignored,
        }),
        _ => None,
    }
}

/// What a piece of output says.
fn piece(delta: Delta<'_>) -> Translated {
    let observation = if delta.field == "text" {
        Observation::Delta {
            answer: delta.message.into_owned(),
            part: delta.part.into_owned(),
            text: delta.text,
        }
    } else {
        Observation::Ignored
    };
    Translated {
        session: Some(delta.session.into_owned()),
        observation,
    }
}

/// What a reply's word means; `None` for one that this build does not know.
fn reply(word: &str) -> Option<PermissionAnswer> {
    match word {
        "once" => Some(PermissionAnswer::Once),
        "always" => Some(PermissionAnswer::Always),
        "reject" => Some(PermissionAnswer::Reject),
        _ => None,
    }
}

/// Kinds that are known and mean nothing to a session's turn.
fn means_nothing(kind: &str) -> bool {
    const GROUPS: &[&str] = &[
        "catalog.",
        "command.",
        "file.",
        "installation.",
        "integration.",
        "lsp.",
        "mcp.",
        "models-dev.",
        "plugin.",
        "project.",
        "pty.",
        "reference.",
        // The newer engine's world, which shares no session with this one.
        "session.next.",
        "todo.",
        "tui.",
        "vcs.",
        "workspace.",
        "worktree.",
    ];
    matches!(
        kind,
        "global.disposed"
            | "message.part.removed"
            | "message.removed"
            | "permission.v2.asked"
            | "permission.v2.replied"
            | "question.v2.asked"
            | "question.v2.rejected"
            | "question.v2.replied"
            | "server.instance.disposed"
            | "session.compacted"
            | "session.deleted"
            | "session.diff"
            | "session.updated"
    ) || GROUPS.iter().any(|group| kind.starts_with(group))
}

fn properties<'a, T: Deserialize<'a>>(payload: &Payload<'a>) -> Option<T> {
    serde_json::from_str(payload.properties?.get()).ok()
}

fn session_of(payload: &Payload<'_>) -> Option<String> {
    properties::<InSession>(payload)?.session
}

fn unrecognised(kind: &str, session: Option<String>, frame: &Frame) -> Translated {
    let mut bytes = frame.data.as_bytes().to_vec();
    bytes.truncate(UNRECOGNISED_BYTES_MAX);
    Translated {
        session,
        observation: Observation::Unrecognised {
            kind: super::wire::bounded(kind.to_owned()),
            frame: Json(bytes),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::opencode::captured;
    use crate::adapter::{Answer, OutputPart, ToolCall, ToolState};
    use recount_store::{Choice, OutputKind, Prompt};

    /// What a recorded stream says, without what means nothing.
    fn said(response: &[u8]) -> Vec<Translated> {
        let mut said: Vec<_> = captured::frames(response).iter().map(translate).collect();
        said.retain(|said| said.observation != Observation::Ignored);
        assert!(!said.is_empty());
        said
    }

    /// The same of one session, in a word or two each: who answers what is compared in full elsewhere.
    fn story(response: &[u8], session: Option<&str>) -> Vec<String> {
        said(response)
            .into_iter()
            .filter(|said| session.is_none() || said.session.as_deref() == session)
            .map(|said| match said.observation {
                Observation::AnswerUpdated(answer) if answer.completed => format!(
                    "answered {}",
                    answer
                        .finish
                        .or(answer.error.map(|error| error.name))
                        .unwrap_or_default()
                ),
                Observation::AnswerUpdated(_) => "answers".into(),
                Observation::Delta { .. } => "delta".into(),
                Observation::PartOpened { .. } => "opened".into(),
                Observation::PartEnded { part, .. } => format!("ended {:.10}", part.text),
                Observation::Tool { call, .. } => format!(
                    "{} {}",
                    call.tool,
                    match call.state {
                        ToolState::Pending => "pending".to_owned(),
                        ToolState::Running { .. } => "running".to_owned(),
                        ToolState::Completed { output, .. } => format!("gave {output:.10}"),
                        ToolState::Failed { error, .. } => format!("failed: {error:.17}"),
                    }
                ),
                Observation::PermissionAsked(asked) => {
                    format!("asks for {} {}", asked.action, asked.detail)
                }
                Observation::PermissionReplied { .. } => "replied".into(),
                Observation::QuestionAsked(asked) => {
                    format!("asks {}", asked.prompts[0].text)
                }
                Observation::QuestionReplied { answers, .. } => format!("told {answers:?}"),
                Observation::Error { name, reason } => format!("error {name} {reason}"),
                Observation::Retrying {
                    attempt, reason, ..
                } => {
                    format!("retry {attempt} {reason:.20}")
                }
                Observation::Counted { number } => format!("#{number}"),
                Observation::ChildOf { parent } => format!("child of {parent}"),
                other => format!("{other:?}").to_lowercase(),
            })
            .fold(Vec::new(), |mut story: Vec<String>, next| {
                // What is said over and over in a row is one thing.
                if story.last() != Some(&next) {
                    story.push(next);
                }
                story
            })
    }

    #[test]
    fn a_plain_turn_is_translated_in_full() {
        let session = "ses_dfde6a8e5ffe0i9xzroriJF8Y7";
        let (id, parent) = (
            "msg_20219573d001j0oVMYIHymNhZh",
            "msg_20219572a001P43McZaT4bOOCM",
        );
        let part = "prt_2021957710010ukWUJYSpELN06";
        let answer = |completed, finish: Option<&str>| {
            Observation::AnswerUpdated(Answer {
                id: id.into(),
                parent: parent.into(),
                completed,
                finish: finish.map(str::to_owned),
                error: None,
            })
        };
        let delta = |text: &str| Observation::Delta {
            answer: id.into(),
            part: part.into(),
            text: text.into(),
        };
        let text = "alpha0 bravo1 charlie2 delta3 echo4 foxtrot5 golf6 hotel7 india8 juliett9 \
                    kilo10 lima11 mike12 november13 oscar14 papa15 quebec16 romeo17 sierra18 tango19";
        let expected = [
            Observation::Busy,
            answer(false, None),
            Observation::Busy,
            Observation::PartOpened {
                answer: id.into(),
                part: part.into(),
                kind: OutputKind::Text,
            },
            delta("alpha0 bravo1 charlie2 delta3 "),
            delta("echo4 foxtrot5 golf6 hotel7 ind"),
            delta("ia8 juliett9 kilo10 lima11 mike"),
            delta("12 november13 oscar14 papa15 qu"),
            delta("ebec16 romeo17 sierra18 tango19"),
            Observation::PartEnded {
                answer: id.into(),
                part: OutputPart {
                    id: part.into(),
                    kind: OutputKind::Text,
                    text: text.into(),
                    ended: true,
                },
            },
            answer(true, Some("stop")),
            answer(true, Some("stop")),
            Observation::Busy,
            Observation::Idle,
            Observation::Idle,
        ];
        let connected = Translated {
            session: None,
            observation: Observation::Connected,
        };
        let in_session = expected.into_iter().map(|observation| Translated {
            session: Some(session.into()),
            observation,
        });
        let expected: Vec<_> = std::iter::once(connected).chain(in_session).collect();
        assert_eq!(said(captured::PLAIN), expected);
    }

    #[test]
    fn a_tool_call_is_translated_in_full() {
        let session = "ses_dfe1f5c87ffeoK3hwNkHZ0aRpe";
        let input = || Json(br#"{"command":"echo permitted","description":"fake step"}"#.to_vec());
        let tool = |state| Observation::Tool {
            answer: "msg_201e0a393001h6rj8B9w1DvcmT".into(),
            call: ToolCall {
                id: "call_fake_000007_0".into(),
                tool: "bash".into(),
                state,
            },
        };
        let expected = [
            tool(ToolState::Pending),
            tool(ToolState::Running { input: input() }),
            Observation::PermissionAsked(Permission {
                id: "per_201e0a4a8001M9z823GVRTMoTW".into(),
                action: "bash".into(),
                detail: "echo permitted".into(),
                call: Some("call_fake_000007_0".into()),
            }),
            Observation::PermissionReplied {
                permission: "per_201e0a4a8001M9z823GVRTMoTW".into(),
                answer: Some(PermissionAnswer::Once),
            },
            tool(ToolState::Running { input: input() }),
            tool(ToolState::Running { input: input() }),
            tool(ToolState::Completed {
                input: input(),
                output: "permitted\n".into(),
            }),
        ];
        let mut said = said(captured::TOOL_ONCE);
        said.retain(|said| {
            matches!(
                said.observation,
                Observation::Tool { .. }
                    | Observation::PermissionAsked(_)
                    | Observation::PermissionReplied { .. }
            )
        });
        let expected = expected.map(|observation| Translated {
            session: Some(session.into()),
            observation,
        });
        assert_eq!(said, expected);
    }

    #[test]
    fn a_refused_tool_call_ends_the_turn_without_an_error() {
        assert_eq!(
            story(captured::TOOL_REJECTED, None),
            [
                "connected",
                "busy",
                "answers",
                "busy",
                "opened",
                "delta",
                "bash pending",
                "asks for bash echo refused",
                "bash running",
                "ended I will run",
                "replied",
                "bash failed: The user rejected",
                "answered tool-calls",
                "idle",
            ]
        );
    }

    #[test]
    fn a_question_in_words_is_translated_in_full() {
        let session = "ses_dfc4deb8effe16py7i0QcL6tDz";
        let id = "que_203b219a70018FViH1rZLP9rH3";
        let choice = |label: &str, about: &str| Choice {
            label: label.into(),
            about: about.into(),
        };
        let prompts = vec![
            Prompt {
                header: "Colour".into(),
                text: "Which colour shall it be?".into(),
                options: vec![choice("Red", "Like fire"), choice("Blue", "Like water")],
                multiple: false,
                custom: true,
            },
            Prompt {
                header: "Tests".into(),
                text: "Which tests?".into(),
                options: vec![choice("Unit", "u"), choice("Sim", "s")],
                multiple: true,
                custom: true,
            },
        ];
        let expected = [
            Observation::QuestionAsked(Question {
                id: id.into(),
                prompts,
                call: Some("call_fake_000001_0".into()),
            }),
            Observation::QuestionReplied {
                question: id.into(),
                answers: Some(vec![vec!["Blue".into()], vec!["Unit".into(), "Sim".into()]]),
            },
        ];
        let mut said = said(captured::QUESTION_ANSWERED);
        said.retain(|said| {
            matches!(
                said.observation,
                Observation::QuestionAsked(_) | Observation::QuestionReplied { .. }
            )
        });
        let expected = expected.map(|observation| Translated {
            session: Some(session.into()),
            observation,
        });
        assert_eq!(said, expected);
    }

    #[test]
    fn a_question_that_is_refused_ends_the_turn_as_a_refused_permission_does() {
        let mut story = story(captured::QUESTION_REJECTED, None);
        story.retain(|said| !said.starts_with('#'));
        story.dedup();
        assert_eq!(
            story,
            [
                "connected",
                "busy",
                "answers",
                "busy",
                "opened",
                "delta",
                "question pending",
                "asks Which colour shall it be?",
                "question running",
                "ended I ask. ",
                "told None",
                "question failed: The user dismisse",
                "answered tool-calls",
                "idle",
            ]
        );
    }

    #[test]
    fn a_provider_that_breaks_off_is_a_retry_with_a_new_part() {
        let story = story(captured::PROVIDER_CUT, None);
        let retry = story.iter().position(|said| said.starts_with("retry 1"));
        let retry = retry.expect("a retry");
        assert_eq!(story[..retry].last().map(String::as_str), Some("delta"));
        assert!(story[retry..].contains(&"opened".to_owned()), "{story:#?}");
        assert_eq!(story.last().map(String::as_str), Some("idle"));
    }

    #[test]
    fn an_aborted_turn_is_idle_before_its_answer_ends() {
        let story = story(captured::ABORTED, None);
        assert_eq!(
            story[..12],
            [
                "connected",
                "busy",
                "answers",
                "busy",
                "opened",
                "delta",
                "error MessageAbortedError Aborted",
                "idle",
                "ended alpha0 bra",
                "answered MessageAbortedError",
                "idle",
                "busy",
            ]
        );
    }

    #[test]
    fn a_sub_agent_is_told_from_its_parent() {
        assert_eq!(
            story(captured::SUBAGENT, Some("ses_dfe1b83bcffepAHhLIjAgms4wP")),
            [
                "child of ses_dfe1b842bffemAda2ldzwg3q9D",
                "busy",
                "answers",
                "busy",
                "opened",
                "delta",
                "ended alpha0 bra",
                "answered stop",
                "busy",
                "idle",
            ]
        );
    }

    #[test]
    fn the_stream_of_all_folders_counts_what_is_kept() {
        let story = story(captured::DISPOSED, None);
        let counted: Vec<_> = story.iter().filter(|said| said.starts_with('#')).collect();
        let expected: Vec<_> = (0..=10).map(|number| format!("#{number}")).collect();
        assert_eq!(counted, expected.iter().collect::<Vec<_>>());
        assert!(story.contains(&"answered MessageAbortedError".to_owned()));
    }

    /// In one pass or in two, in whatever order its fields come.
    #[test]
    fn a_piece_is_the_same_bare_and_wrapped() {
        let properties = r#""properties":{"sessionID":"ses_1","messageID":"msg_1","partID":"prt_1","field":"text","delta":"\u00e9 \"a\""}"#;
        let kind = r#""type":"message.part.delta""#;
        let expected = Translated {
            session: Some("ses_1".into()),
            observation: Observation::Delta {
                answer: "msg_1".into(),
                part: "prt_1".into(),
                text: "é \"a\"".into(),
            },
        };
        for payload in [
            format!("{{{kind},{properties}}}"),
            format!("{{{properties},{kind}}}"),
        ] {
            let wrapped = format!(r#"{{"directory":"/a","payload":{payload}}}"#);
            for data in [payload, wrapped] {
                assert_eq!(translate(&Frame { data: data.clone() }), expected, "{data}");
            }
        }
    }

    #[test]
    fn what_is_not_known_is_kept_and_cut() {
        let of = |data: String| translate(&Frame { data });
        let unknown = r#"{"type":"oracle.spoke","properties":{"sessionID":"ses_1"}}"#;
        assert_eq!(
            of(unknown.into()),
            Translated {
                session: Some("ses_1".into()),
                observation: Observation::Unrecognised {
                    kind: "oracle.spoke".into(),
                    frame: Json(unknown.into()),
                },
            }
        );
        let unreadable = "x".repeat(10_000);
        assert_eq!(
            of(unreadable.clone()).observation,
            Observation::Unrecognised {
                kind: "unreadable".into(),
                frame: Json(unreadable.as_bytes()[..4096].to_vec()),
            }
        );
        // A known kind in a shape that is not.
        let odd = r#"{"type":"message.part.delta","properties":{"sessionID":"ses_1","delta":7}}"#;
        assert_eq!(
            of(odd.into()).observation,
            Observation::Unrecognised {
                kind: "message.part.delta".into(),
                frame: Json(odd.into()),
            }
        );
    }

    #[test]
    fn a_heartbeat_is_a_sign_of_life_and_of_no_session() {
        for data in [
            r#"{"id":"evt_1","type":"server.heartbeat","properties":{}}"#,
            r#"{"payload":{"id":"evt_1","type":"server.heartbeat","properties":{}}}"#,
        ] {
            let said = translate(&Frame { data: data.into() });
            let expected = Translated {
                session: None,
                observation: Observation::Heartbeat,
            };
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn what_stands_in_the_users_name_is_no_output() {
        for part in [
            r#""text":"hi""#,
            r#""text":"Continue","synthetic":true,"time":{"start":1,"end":2}"#,
        ] {
            let data = format!(
                r#"{{"type":"message.part.updated","properties":{{"sessionID":"ses_1",
                "part":{{"id":"prt_1","messageID":"msg_1","type":"text",{part}}}}}}}"#
            );
            let said = translate(&Frame { data });
            assert_eq!(said.observation, Observation::Ignored, "{part}");
        }
    }
}
