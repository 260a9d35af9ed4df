//! The Chat Completions protocol: reading a request, writing a streamed answer.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::script::Step;

/// What a request asks for, as far as a script needs it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) model: String,
    /// The newest user message that holds a script, else the newest one.
    pub(super) prompt: String,
    /// How many answers the model has given since that message.
    pub(super) step: usize,
    /// Asks for a title or the like, beside the conversation.
    pub(super) side: bool,
    /// Everything that the model is to read, as it came.
    pub(super) messages: Vec<Value>,
}

impl Request {
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        let body: Body = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if !body.stream {
            return Err("only streamed answers are given".into());
        }
        let role = |message: &Value| message["role"].as_str().map(str::to_owned);
        let messages: Vec<(String, String)> = body
            .messages
            .iter()
            .map(|message| Some((role(message)?, text_of(&message["content"]))))
            .collect::<Option<_>>()
            .ok_or("a message without a role")?;
        let user = |holds_script: bool| {
            messages.iter().rposition(|(role, text)| {
                role == "user" && (!holds_script || text.contains("fake:"))
            })
        };
        let asked = user(true)
            .or_else(|| user(false))
            .ok_or("no user message")?;
        // Two messages of the assistant in a row are one answer.
        let roles = || {
            messages[asked..]
                .iter()
                .map(|(role, _)| role == "assistant")
        };
        let step = roles()
            .zip(roles().skip(1))
            .filter(|pair| *pair == (false, true))
            .count();
        let asks_title = messages.iter().any(|(role, text)| {
            let text = || text.to_lowercase();
            matches!(role.as_str(), "system" | "developer")
                && (text().contains("title generator") || text().contains("generate a title"))
        });
        Ok(Self {
            side: asks_title || body.model.ends_with("-small"),
            model: body.model,
            prompt: messages[asked].1.clone(),
            step,
            messages: body.messages,
        })
    }
}

#[derive(Deserialize)]
struct Body {
    model: String,
    messages: Vec<Value>,
    #[serde(default)]
    stream: bool,
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<_> = parts
                .iter()
                .filter_map(|part| part["text"].as_str())
                .collect();
            texts.join("\n")
        }
        _ => String::new(),
    }
}

/// One piece of a streamed answer.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    /// What this piece adds to the text of the answer.
    pub(super) text: String,
    /// Whether it counts as a chunk, which a script may delay, hold back or leave out.
    pub(super) is_content: bool,
}

/// The whole answer to one call, piece by piece.
pub(super) fn frames(model: &str, number: u64, text: &str, step: &Step) -> Vec<Frame> {
    let id = format!("chatcmpl-{number:06}");
    let line = |choices: Value, usage: Option<Value>| {
        let mut chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": 0, "model": model, "choices": choices,
        });
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        data(&chunk.to_string())
    };
    let choice = |delta: Value, finish: Option<&str>| json!([{ "index": 0, "delta": delta, "finish_reason": finish }]);
    let envelope = |bytes| Frame {
        bytes,
        text: String::new(),
        is_content: false,
    };
    let content = |delta, text: &str| Frame {
        bytes: line(choice(delta, None), None),
        text: text.into(),
        is_content: true,
    };

    let mut frames = vec![envelope(line(
        choice(json!({ "role": "assistant", "content": "" }), None),
        None,
    ))];
    if let Some(raw) = &step.raw {
        frames.push(Frame {
            bytes: data(raw),
            text: String::new(),
            is_content: true,
        });
    }
    for piece in pieces(&step.reasoning, 4) {
        frames.push(content(json!({ "reasoning_content": piece }), ""));
    }
    for piece in pieces(text, step.chunks) {
        frames.push(content(json!({ "content": piece }), piece));
    }
    for (index, tool) in step.tools.iter().enumerate() {
        let call = json!([{
            "index": index,
            "id": format!("call_fake_{number:06}_{index}"),
            "type": "function",
            "function": { "name": tool.name, "arguments": "" },
        }]);
        frames.push(content(json!({ "tool_calls": call }), ""));
        for piece in pieces(&tool.args.to_string(), 3) {
            let call = json!([{ "index": index, "function": { "arguments": piece } }]);
            frames.push(content(json!({ "tool_calls": call }), ""));
        }
    }
    let finish = if step.tools.is_empty() {
        "stop"
    } else {
        "tool_calls"
    };
    let finish = step.finish.as_deref().unwrap_or(finish);
    frames.push(envelope(line(choice(json!({}), Some(finish)), None)));
    let tokens = (text.len() / 4).max(1);
    let usage =
        json!({ "prompt_tokens": 100, "completion_tokens": tokens, "total_tokens": 100 + tokens });
    frames.push(envelope(line(json!([]), Some(usage))));
    frames.push(envelope(data("[DONE]")));
    frames
}

fn data(line: &str) -> Bytes {
    format!("data: {line}\n\n").into()
}

/// Cuts a text into at most `count` pieces of about the same number of characters, none empty.
fn pieces(text: &str, count: usize) -> Vec<&str> {
    let mut starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    let length = starts.len();
    starts.push(text.len());
    let count = count.clamp(1, length.max(1));
    let piece = |range: Range<usize>| &text[starts[range.start]..starts[range.end]];
    (0..count)
        .map(|i| piece(length * i / count..length * (i + 1) / count))
        .filter(|piece| !piece.is_empty())
        .collect()
}
