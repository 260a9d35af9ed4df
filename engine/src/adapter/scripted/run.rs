//! One run of a turn: the steps of a script, told in the order in which OpenCode tells them.

use std::sync::Arc;
use std::time::Duration;

use recount_store::{Choice, Prompt};
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};

use super::agent::{Agent, Kept, Question};
use super::hub::locked;
use super::script::Step;
use super::store::{Part, PartBody, Role, Session};

/// How many bytes of pieces at full speed are put together before they are sent.
const BATCH: usize = 16 << 10;

/// How long a dying server's last bytes get to leave its sockets.
const LAST_BYTES: Duration = Duration::from_millis(20);

/// Works on a message, and then on the newest one until it is answered, as the real agent's loop does.
pub(super) async fn work(agent: Arc<Agent>, session: String, target: String, abort: Arc<Notify>) {
    let mut target = Some(target);
    while let Some(message) = target {
        let Some(mut turn) = Turn::begin(&agent, &session, &message) else {
            return;
        };
        let steps = turn.steps();
        let end = tokio::select! {
            biased;
            () = abort.notified() => End::Failed("MessageAbortedError".into(), "Aborted".into()),
            end = turn.play(steps) => end,
        };
        turn.end(&end);
        target = None;
        agent.keep(&session, |kept| {
            let next = kept.newest().map(|newest| newest.id.clone());
            let next = next.filter(|next| *next != message && !kept.answered(next));
            if next.is_none() || matches!(end, End::Failed(..)) {
                // Under the store's lock: a prompt that comes now finds no work and starts its own.
                locked(&agent.running).remove(&session);
            } else {
                target = next;
            }
            ((), Vec::new())
        });
        if target.is_none() {
            turn.idle();
            if matches!(end, End::Failed(..)) {
                turn.idle();
            }
        }
    }
}

/// How the steps of a run ended.
enum End {
    Completed,
    /// A newer message was kept meanwhile: what follows answers that one.
    WentOn,
    /// A permission was refused: the real agent says so in the tool alone.
    Refused,
    Failed(String, String),
}

struct Turn<'a> {
    agent: &'a Arc<Agent>,
    session: &'a str,
    directory: String,
    message: &'a str,
    prompt: String,
    run: u32,
    /// The answer that is being written.
    answer: Option<String>,
    open: Option<Open>,
}

/// A tool call that is under way.
struct ToolCall {
    answer: String,
    part: String,
    call: String,
    input: Value,
    start: u64,
}

impl ToolCall {
    fn running(&self) -> Value {
        json!({"status": "running", "input": self.input, "time": {"start": self.start}})
    }
}

/// A part that is being streamed.
struct Open {
    part: String,
    kind: &'static str,
    text: String,
}

impl<'a> Turn<'a> {
    fn begin(agent: &'a Arc<Agent>, session: &'a str, message: &'a str) -> Option<Self> {
        let (directory, prompt, run) = agent.keep(session, |kept| {
            let directory = kept.directory.clone();
            let found = kept.message_mut(message).map(|found| {
                let prompt = found.prompt();
                let Role::User { runs } = &mut found.role else {
                    unreachable!("only a user's message is run");
                };
                *runs += 1;
                (directory, prompt, *runs)
            });
            (found, Vec::new())
        })??;
        agent.shared.asked(&prompt);
        agent.set_status(session, &directory, Some(json!({"type": "busy"})));
        Some(Self {
            agent,
            session,
            directory,
            message,
            prompt,
            run,
            answer: None,
            open: None,
        })
    }

    fn steps(&self) -> Vec<Step> {
        self.agent.shared.script.steps(&self.prompt, self.run)
    }

    async fn play(&mut self, steps: Vec<Step>) -> End {
        self.answer();
        for step in steps {
            match step {
                Step::Text {
                    text,
                    chunks,
                    delay,
                } => self.say("text", &text, chunks, delay).await,
                Step::Reasoning {
                    text,
                    chunks,
                    delay,
                } => self.say("reasoning", &text, chunks, delay).await,
                Step::Tool {
                    name,
                    input,
                    output,
                    permission,
                    delay,
                } => {
                    self.close();
                    if let Some(end) = self.tool(&name, &input, output, permission, delay).await {
                        return end;
                    }
                    if self.is_newer_kept() {
                        return End::WentOn;
                    }
                }
                Step::Question(prompts) => {
                    self.close();
                    if let Some(end) = self.question(&prompts).await {
                        return end;
                    }
                    if self.is_newer_kept() {
                        return End::WentOn;
                    }
                }
                Step::Retry { reason, wait } => {
                    // The part stays as it is, empty and without an end; a new one follows.
                    self.open = None;
                    let next = self
                        .agent
                        .now()
                        .saturating_add(u64::try_from(wait.as_millis()).unwrap_or(0));
                    let status = json!({
                        "type": "retry", "attempt": 1, "message": reason, "next": next,
                    });
                    self.status(status);
                    tokio::time::sleep(wait).await;
                    self.status(json!({"type": "busy"}));
                }
                Step::Fail { name, reason } => return End::Failed(name, reason),
                Step::Die => self.die().await,
                Step::DieEnding => {
                    self.close();
                    self.answer();
                    self.finish("stop");
                    self.die().await;
                }
                Step::Stall => std::future::pending::<()>().await,
                Step::Gate(name) => self.agent.shared.gate(&name).await,
            }
        }
        self.close();
        self.answer();
        End::Completed
    }

    /// Dies, and what was streamed before has left the server.
    async fn die(&self) {
        self.agent.hub.drained().await;
        tokio::time::sleep(LAST_BYTES).await;
        self.agent.die();
        std::future::pending::<()>().await;
    }

    /// Streams a text, into the part that is open where it is of the same kind.
    async fn say(&mut self, kind: &'static str, text: &str, chunks: usize, delay: Duration) {
        if self.open.as_ref().is_some_and(|open| open.kind != kind) {
            self.close();
        }
        self.open(kind);
        let Some(open) = &mut self.open else { return };
        let answer = self.answer.as_deref().unwrap_or_default();
        // The frame of a piece, up to the piece; written out, since there may be many.
        let ids = json!({"sessionID": self.session, "messageID": answer, "partID": open.part});
        let ids = ids.to_string();
        let head = format!(
            "data: {{\"directory\":{},\"project\":\"global\",\"payload\":{{\"type\":\"message.part.delta\",\
             \"properties\":{{{},\"field\":\"text\",\"delta\":",
            Value::from(self.directory.as_str()),
            &ids[1..ids.len() - 1],
        );
        let mut batch = Vec::new();
        for piece in pieces(text, chunks) {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            open.text.push_str(piece);
            batch.extend_from_slice(head.as_bytes());
            // A string is always JSON, and a Vec takes it.
            let _ = serde_json::to_writer(&mut batch, piece);
            batch.extend_from_slice(b"},\"id\":\"");
            batch.extend_from_slice(self.agent.event_id().as_bytes());
            batch.extend_from_slice(b"\"}}\n\n");
            if !delay.is_zero() || batch.len() >= BATCH {
                self.agent.tell_bytes(&batch);
                batch.clear();
                self.agent.hub.flow().await;
            }
        }
        self.agent.tell_bytes(&batch);
        if delay.is_zero() {
            tokio::task::yield_now().await;
        }
    }

    async fn tool(
        &mut self,
        name: &str,
        input: &Value,
        output: String,
        permission: Option<String>,
        delay: Duration,
    ) -> Option<End> {
        let tool = self.begin_tool(name, input)?;
        if let Some(detail) = permission {
            let asked = json!({
                "permission": name, "patterns": [detail], "metadata": {"command": detail}, "always": [],
            });
            let reply = self.ask("permission", asked, &tool).await?;
            if reply["reply"] == "reject" {
                let refused = "The user rejected permission to use this specific tool call.";
                self.fail_tool(&tool, refused);
                return Some(End::Refused);
            }
            self.set_tool(&tool.answer, &tool.part, tool.running());
        }
        tokio::time::sleep(delay).await;
        self.complete_tool(&tool, name, &output);
        None
    }

    /// Asks something in words, as the real agent does by a tool.
    async fn question(&mut self, prompts: &[Prompt]) -> Option<End> {
        let option = |choice: &Choice| json!({"label": choice.label, "description": choice.about});
        let questions = prompts.iter().map(|prompt| {
            let options: Vec<_> = prompt.options.iter().map(option).collect();
            json!({
                "header": prompt.header, "question": prompt.text, "options": options,
                "multiple": prompt.multiple, "custom": prompt.custom,
            })
        });
        let input = json!({"questions": questions.collect::<Vec<_>>()});
        let tool = self.begin_tool("question", &input)?;
        let reply = self.ask("question", input.clone(), &tool).await?;
        let Some(answers) = reply["answers"].as_array() else {
            self.fail_tool(&tool, "The user dismissed this question");
            return Some(End::Refused);
        };
        let said = prompts.iter().zip(answers).map(|(prompt, answer)| {
            let texts = answer.as_array().into_iter().flatten();
            let texts: Vec<_> = texts.filter_map(Value::as_str).collect();
            format!("{:?}={:?}", prompt.text, texts.join(", "))
        });
        let said = said.collect::<Vec<_>>().join(", ");
        let output = format!("User has answered your questions: {said}.");
        self.complete_tool(&tool, "question", &output);
        None
    }

    /// Begins a tool call in the answer that is being written.
    fn begin_tool(&mut self, name: &str, input: &Value) -> Option<ToolCall> {
        self.answer();
        let answer = self.answer.clone().unwrap_or_default();
        let pending = json!({"status": "pending", "input": {}, "raw": ""});
        let (part, call) = self.keep(|session| {
            let part = session.next_id("prt");
            let call = session.next_id("call");
            let body = PartBody::Tool {
                name: name.to_owned(),
                call: call.clone(),
                state: pending,
            };
            let event = add_part(session, &answer, &part, body, self.agent.now());
            ((part, call), event)
        })?;
        let tool = ToolCall {
            answer,
            part,
            call,
            input: input.clone(),
            start: self.agent.now(),
        };
        self.set_tool(&tool.answer, &tool.part, tool.running());
        Some(tool)
    }

    /// Ends a tool call that was refused, and the answer stays open.
    fn fail_tool(&self, tool: &ToolCall, error: &str) {
        let failed = json!({
            "status": "error", "input": tool.input, "error": error,
            "time": {"start": tool.start, "end": self.agent.now()},
        });
        self.set_tool(&tool.answer, &tool.part, failed);
    }

    /// Ends a tool call, and the answer with it: what comes after it is another one.
    fn complete_tool(&mut self, tool: &ToolCall, name: &str, output: &str) {
        let completed = json!({
            "status": "completed", "input": tool.input, "output": output, "metadata": {},
            "title": name, "time": {"start": tool.start, "end": self.agent.now()},
        });
        self.set_tool(&tool.answer, &tool.part, completed);
        self.complete("tool-calls", None);
    }

    /// Asks for a permission, or something in words, and waits for the body of the reply.
    async fn ask(&self, kind: &'static str, mut asked: Value, tool: &ToolCall) -> Option<Value> {
        // So do the real agent's ids begin.
        let id = self.keep(|session| (session.next_id(&kind[..3]), Vec::new()))?;
        asked["id"] = json!(id);
        asked["sessionID"] = json!(self.session);
        asked["tool"] = json!({"messageID": tool.answer, "callID": tool.call});
        let (reply, answered) = oneshot::channel();
        locked(&self.agent.questions).push(Question {
            kind,
            id,
            session: self.session.to_owned(),
            directory: self.directory.clone(),
            shown: asked.clone(),
            reply,
        });
        self.agent
            .tell(&self.directory, &format!("{kind}.asked"), &asked);
        answered.await.ok()
    }

    /// Ends the run: what is told last depends on how.
    fn end(&mut self, end: &End) {
        match end {
            End::Completed => self.complete("stop", None),
            // The answer ended with its tool; the rest of the script is not played.
            End::WentOn => {}
            End::Refused => self.complete("tool-calls", None),
            End::Failed(name, reason) => {
                let error = json!({"name": name, "data": {"message": reason}});
                let said = json!({"sessionID": self.session, "error": error});
                self.agent.tell(&self.directory, "session.error", &said);
                // Idle comes before the answer's end, and again after it.
                self.idle();
                self.close();
                self.stop_tools();
                self.complete("", Some((name.clone(), reason.clone())));
            }
        }
    }

    /// Whether there is a newer message, which the real agent reads before it asks its model again.
    fn is_newer_kept(&self) -> bool {
        let newer = self.keep(|session| {
            let newest = session.newest().map(|newest| newest.id.as_str());
            (newest != Some(self.message), Vec::new())
        });
        newer.unwrap_or(false)
    }

    fn idle(&self) {
        let idle = json!({"sessionID": self.session, "status": {"type": "idle"}});
        self.agent.tell(&self.directory, "session.status", &idle);
        let idle = json!({"sessionID": self.session});
        self.agent.tell(&self.directory, "session.idle", &idle);
    }

    fn status(&self, status: Value) {
        self.agent
            .set_status(self.session, &self.directory, Some(status));
    }

    /// Begins an answer where none is being written.
    fn answer(&mut self) {
        if self.answer.is_some() {
            return;
        }
        let parent = self.message;
        self.answer = self.keep(|session| {
            let answer = session.answer(parent, self.agent.now());
            (answer.id.clone(), vec![answer.updated()])
        });
        self.status(json!({"type": "busy"}));
    }

    /// Keeps how the answer that is being written ended, and not yet that it did.
    fn finish(&self, how: &'static str) {
        self.change_answer(|role| {
            if let Role::Assistant { finish, .. } = role {
                *finish = Some(how);
            }
        });
    }

    /// Ends the answer that is being written.
    fn complete(&mut self, how: &'static str, failure: Option<(String, String)>) {
        self.change_answer(|role| {
            if let Role::Assistant {
                completed,
                finish,
                error,
                ..
            } = role
            {
                *completed = Some(self.agent.now());
                *finish = failure.is_none().then_some(how);
                *error = failure;
            }
        });
        self.answer = None;
    }

    /// Changes the answer that is being written, if there is one.
    fn change_answer(&self, change: impl FnOnce(&mut Role)) {
        let Some(id) = &self.answer else { return };
        self.keep(|session| {
            let Some(message) = session.message_mut(id) else {
                return ((), Vec::new());
            };
            change(&mut message.role);
            ((), vec![message.updated()])
        });
    }

    /// Opens a part, empty: so it stays should the server die.
    fn open(&mut self, kind: &'static str) {
        if self.open.is_some() {
            return;
        }
        self.answer();
        let Some(answer) = self.answer.clone() else {
            return;
        };
        let part = self.keep(|session| {
            let part = session.next_id("prt");
            let body = PartBody::Output {
                kind,
                text: String::new(),
                start: self.agent.now(),
                end: None,
            };
            let events = add_part(session, &answer, &part, body, self.agent.now());
            (part, events)
        });
        self.open = part.map(|part| Open {
            part,
            kind,
            text: String::new(),
        });
    }

    /// Ends the part that is open, with its whole text.
    fn close(&mut self) {
        let (Some(open), Some(answer)) = (self.open.take(), self.answer.clone()) else {
            return;
        };
        self.keep(|session| {
            let events = change_part(session, &answer, &open.part, self.agent.now(), |body| {
                if let PartBody::Output { text, end, .. } = body {
                    *text = open.text;
                    *end = Some(self.agent.now());
                }
            });
            ((), events)
        });
    }

    fn set_tool(&self, answer: &str, part: &str, to: Value) {
        self.keep(|session| {
            let events = change_part(session, answer, part, self.agent.now(), |body| {
                if let PartBody::Tool { state, .. } = body {
                    *state = to;
                }
            });
            ((), events)
        });
    }

    /// Ends the tools that an abort met at work.
    fn stop_tools(&self) {
        let Some(answer) = self.answer.as_deref() else {
            return;
        };
        let open = self.keep(|session| {
            let parts = session.message(answer).map(|message| {
                let open = message.parts.iter().filter_map(|part| match &part.body {
                    PartBody::Tool { state, .. }
                        if state["status"] == "running" || state["status"] == "pending" =>
                    {
                        Some((part.id.clone(), state["input"].clone()))
                    }
                    _ => None,
                });
                open.collect::<Vec<_>>()
            });
            (parts.unwrap_or_default(), Vec::new())
        });
        for (part, input) in open.unwrap_or_default() {
            let failed = json!({
                "status": "error", "input": input, "error": "Tool execution aborted",
                "time": {"start": self.agent.now(), "end": self.agent.now()},
            });
            self.set_tool(answer, &part, failed);
        }
    }

    fn keep<T>(&self, change: impl FnOnce(&mut Session) -> (T, Vec<Kept>)) -> Option<T> {
        self.agent.keep(self.session, change)
    }
}

fn add_part(session: &mut Session, message: &str, id: &str, body: PartBody, now: u64) -> Vec<Kept> {
    let Some(message) = session.message_mut(message) else {
        return Vec::new();
    };
    message.parts.push(Part {
        id: id.to_owned(),
        body,
    });
    message
        .parts
        .last()
        .map(|part| message.part_updated(part, now))
        .into_iter()
        .collect()
}

fn change_part(
    session: &mut Session,
    message: &str,
    id: &str,
    now: u64,
    change: impl FnOnce(&mut PartBody),
) -> Vec<Kept> {
    let Some(message) = session.message_mut(message) else {
        return Vec::new();
    };
    let Some(at) = message.parts.iter().position(|part| part.id == id) else {
        return Vec::new();
    };
    change(&mut message.parts[at].body);
    vec![message.part_updated(&message.parts[at], now)]
}

/// A text in `count` pieces of about the same length.
fn pieces(text: &str, count: usize) -> impl Iterator<Item = &str> {
    let count = count.max(1);
    let mut from = 0;
    (1..=count).filter_map(move |n| {
        let mut to = text.len() * n / count;
        while !text.is_char_boundary(to) {
            to += 1;
        }
        let piece = (to > from).then(|| &text[from..to]);
        from = from.max(to);
        piece
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_text_again() {
        for (text, count, expected) in [
            ("", 3, 0),
            ("abc", 0, 1),
            ("abc", 2, 2),
            ("abc", 9, 3),
            ("漢字🙂é", 5, 4),
        ] {
            let pieces: Vec<_> = pieces(text, count).collect();
            assert_eq!(pieces.concat(), text);
            assert_eq!(pieces.len(), expected, "{text} in {count}");
        }
    }
}
