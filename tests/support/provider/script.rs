//! What the scripted model does, read from the prompt itself.
//!
//! A script starts at the first `fake:` of a prompt:
//!
//! ```text
//! fake:NAME key=value key=value ...      a named scenario
//! fake:{"steps":[STEP, STEP, ...]}       one STEP for each model call of the turn
//! ```
//!
//! The n-th model call of a turn plays step n; calls beyond the last step repeat it.
//!
//! | scenario   | parameters                 | what the model does                                      |
//! | ---------- | -------------------------- | -------------------------------------------------------- |
//! | `plain`    | `text=` or `words=12`      | a plain reply                                            |
//! | `long`     | `words=20000 chunks=2000`  | a very long reply                                        |
//! | `utf8`     | `words=60 split=7`         | multi-byte text, written `split` bytes at a time         |
//! | `huge`     | `bytes=1000000`            | one single delta of that many bytes                      |
//! | `reason`   | `words=12`                 | reasoning, then text                                     |
//! | `bash`     | `cmd=echo+hi`              | text and a call of the bash tool, then `Done.`           |
//! | `write`    | `path=out.txt content=hello` | a call of the write tool, then `Done.`                 |
//! | `twotools` | `cmd=echo+hi cmd2=echo+two` | two bash calls in one answer, then `Done.`              |
//! | `loop`     | `n=3 cmd=echo+hi`          | n answers with a bash call each, then `Done.`            |
//! | `error`    | `status=500 times=1 retry=SECONDS` | the first `times` calls fail, then it recovers   |
//! | `cut`      | `after=2 times=1 rst=0`    | the first `times` calls break off after `after` chunks   |
//! | `hang`     | `secs=5 times=ALWAYS`      | no byte of an answer for that long, then a plain reply   |
//! | `gate`     | `name=g after=1`           | `after` chunks, then nothing until the test opens the gate |
//! | `badjson`  | `times=ALWAYS`             | a line of data that is not JSON                          |
//!
//! All of them take `chunks=`, `delay=` (milliseconds between chunks), `first=` (milliseconds before
//! the first) and `id=`, which does nothing but tell two prompts apart. In words, `+` stands for a
//! space. In a text, `{n}` becomes the number of times that this step was asked for.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::{Value, json};

/// The text that a script's turn is answered with, all its model calls joined.
///
/// Calls that the script lets fail are left out: what they sent in part is in the provider's record.
pub fn expected_text(script: &str) -> String {
    expected_texts(script).concat()
}

/// The text that each successful model call of a script's turn is answered with.
pub fn expected_texts(script: &str) -> Vec<String> {
    steps(script)
        .unwrap()
        .iter()
        .filter_map(|step| Some(step.text_at(step.first_success()?)))
        .collect()
}

/// The script inside a prompt: everything from the first `fake:` on.
///
/// The first one counts, because a script may quote another for a sub-agent.
pub(super) fn script_of(prompt: &str) -> Option<&str> {
    prompt.find("fake:").map(|start| &prompt[start..])
}

/// One model call of a turn.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Step {
    pub(super) text: String,
    pub(super) reasoning: String,
    pub(super) tools: Vec<Tool>,
    pub(super) chunks: usize,
    pub(super) first_ms: u64,
    pub(super) delay_ms: u64,
    /// Writes of at most so many bytes; they end anywhere, also inside a character.
    pub(super) split: Option<usize>,
    pub(super) finish: Option<String>,
    /// How many calls of this step fail in the way that the fields below say.
    pub(super) times: u64,
    pub(super) status: Option<u16>,
    pub(super) retry_after: Option<u64>,
    pub(super) cut_after: Option<usize>,
    /// Whether a cut resets the TCP connection instead of closing it.
    pub(super) rst: bool,
    pub(super) hang_ms: u64,
    /// A line of data sent as it stands before the text.
    pub(super) raw: Option<String>,
    pub(super) gate: Option<String>,
    pub(super) gate_after: usize,
}

impl Default for Step {
    fn default() -> Self {
        Self {
            text: String::new(),
            reasoning: String::new(),
            tools: Vec::new(),
            chunks: 4,
            first_ms: 0,
            delay_ms: 10,
            split: None,
            finish: None,
            times: u64::MAX,
            status: None,
            retry_after: None,
            cut_after: None,
            rst: false,
            hang_ms: 0,
            raw: None,
            gate: None,
            gate_after: 1,
        }
    }
}

impl Step {
    /// The text of this step when it is asked for the `attempt`-th time.
    pub(super) fn text_at(&self, attempt: u64) -> String {
        self.text.replace("{n}", &attempt.to_string())
    }

    /// The first attempt that is answered in full, where there is one.
    fn first_success(&self) -> Option<u64> {
        let fails = self.status.is_some() || self.cut_after.is_some() || self.raw.is_some();
        if fails {
            self.times.checked_add(1)
        } else {
            Some(1)
        }
    }
}

/// One call of a tool.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) args: Value,
}

/// The steps that a prompt asks for; a prompt without a script gets a short plain reply.
pub(super) fn steps(prompt: &str) -> Result<Vec<Step>, String> {
    let Some(script) = script_of(prompt) else {
        return Ok(vec![Step {
            text: "Hello from the scripted model.".into(),
            ..Step::default()
        }]);
    };
    let body = &script["fake:".len()..];
    if body.starts_with('{') {
        return explicit_steps(body).map_err(|error| format!("script {script:?}: {error}"));
    }
    let (name, parameters) = split_directive(body);
    let mut parameters = Parameters(parameters);
    let steps = scenario(name, &mut parameters)
        .and_then(|steps| parameters.none_left().map(|()| steps))
        .map_err(|error| format!("script {script:?}: {error}"))?;
    Ok(steps)
}

fn explicit_steps(body: &str) -> Result<Vec<Step>, String> {
    #[derive(Deserialize)]
    struct Script {
        steps: Vec<Step>,
    }
    // A stream, since words may follow the object.
    let script = serde_json::Deserializer::from_str(body)
        .into_iter::<Script>()
        .next();
    match script {
        Some(Ok(script)) if !script.steps.is_empty() => Ok(script.steps),
        Some(Ok(_)) | None => Err("no steps".into()),
        Some(Err(error)) => Err(error.to_string()),
    }
}

/// The name and the parameters of a directive, which ends at the first word that is no parameter.
fn split_directive(body: &str) -> (&str, BTreeMap<&str, &str>) {
    let line = body.lines().next().unwrap_or_default();
    let end = line
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let mut parameters = BTreeMap::new();
    for word in rest.split([' ', '\t']).filter(|word| !word.is_empty()) {
        let Some((key, value)) = word.split_once('=') else {
            break;
        };
        // Agents may put a prompt between quotes or tags.
        let value_end = value.find(['"', '<']).unwrap_or(value.len());
        parameters.insert(key, &value[..value_end]);
        if value_end < value.len() {
            break;
        }
    }
    (name, parameters)
}

fn scenario(name: &str, given: &mut Parameters) -> Result<Vec<Step>, String> {
    given.0.remove("id");
    let timing = Step {
        chunks: given.number("chunks", if name == "long" { 2_000 } else { 4 })?,
        first_ms: given.number("first", 0)?,
        delay_ms: given.number("delay", if name == "long" { 1 } else { 10 })?,
        ..Step::default()
    };
    let done = Step {
        text: "Done.".into(),
        chunks: 2,
        ..timing.clone()
    };
    let plain = |given: &mut Parameters| -> Result<Step, String> {
        let words = given.number("words", 12)?;
        Ok(Step {
            text: given.words("text").unwrap_or_else(|| ascii_text(words)),
            ..timing.clone()
        })
    };
    let steps = match name {
        "plain" => vec![plain(given)?],
        "long" => vec![Step {
            text: ascii_text(given.number("words", 20_000)?),
            ..timing
        }],
        "utf8" => vec![Step {
            text: utf8_text(given.number("words", 60)?),
            split: Some(given.number("split", 7)?),
            ..timing
        }],
        "huge" => {
            vec![Step {
                text: "x".repeat(given.number("bytes", 1_000_000)?),
                chunks: 1,
                ..timing
            }]
        }
        "reason" => vec![Step {
            reasoning: format!("thinking about {}", ascii_text(10)),
            ..plain(given)?
        }],
        "bash" => {
            let tools = vec![given.bash("cmd", "echo hi")];
            vec![
                Step {
                    text: "I will run it. ".into(),
                    tools,
                    ..timing
                },
                done,
            ]
        }
        "write" => {
            let path = given.words("path").unwrap_or_else(|| "out.txt".into());
            let content = given.words("content").unwrap_or_else(|| "hello".into());
            let args = json!({ "filePath": path, "content": content });
            vec![
                Step {
                    tools: vec![Tool {
                        name: "write".into(),
                        args,
                    }],
                    ..timing
                },
                done,
            ]
        }
        "twotools" => {
            let tools = vec![given.bash("cmd", "echo hi"), given.bash("cmd2", "echo two")];
            vec![Step { tools, ..timing }, done]
        }
        "loop" => {
            let (rounds, tool) = (given.number("n", 3)?, given.bash("cmd", "echo hi"));
            let step = |round: u64| Step {
                text: format!("step {round}. "),
                tools: vec![tool.clone()],
                ..timing.clone()
            };
            (0..rounds).map(step).chain([done]).collect()
        }
        "error" => vec![Step {
            text: "Recovered at call {n}.".into(),
            status: Some(given.number("status", 500)?),
            times: given.number("times", 1)?,
            retry_after: given.optional_number("retry")?,
            ..timing
        }],
        "cut" => vec![Step {
            cut_after: Some(given.number("after", 2)?),
            times: given.number("times", 1)?,
            rst: given.number::<u8>("rst", 0)? != 0,
            ..plain(given)?
        }],
        "hang" => vec![Step {
            hang_ms: given.number::<u64>("secs", 5)? * 1_000,
            times: given.number("times", u64::MAX)?,
            ..plain(given)?
        }],
        "gate" => vec![Step {
            gate: Some(given.words("name").unwrap_or_else(|| "g".into())),
            gate_after: given.number("after", 1)?,
            ..plain(given)?
        }],
        "badjson" => vec![Step {
            raw: Some(r#"{"choices":[{"delta":{"content":"oops"#.into()),
            times: given.number("times", u64::MAX)?,
            ..plain(given)?
        }],
        _ => return Err(format!("there is no scenario {name:?}")),
    };
    Ok(steps)
}

/// What a directive gives; each is taken out as it is read, so that a misspelt one is noticed.
struct Parameters<'a>(BTreeMap<&'a str, &'a str>);

impl Parameters<'_> {
    fn number<T: FromStr>(&mut self, key: &str, default: T) -> Result<T, String> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    fn optional_number<T: FromStr>(&mut self, key: &str) -> Result<Option<T>, String> {
        let Some(value) = self.0.remove(key) else {
            return Ok(None);
        };
        value
            .parse()
            .map(Some)
            .map_err(|_| format!("{key}={value} is not a fitting number"))
    }

    fn words(&mut self, key: &str) -> Option<String> {
        self.0.remove(key).map(|value| value.replace('+', " "))
    }

    fn bash(&mut self, key: &str, default: &str) -> Tool {
        let command = self.words(key).unwrap_or_else(|| default.into());
        let args = json!({ "command": command, "description": "a scripted step" });
        Tool {
            name: "bash".into(),
            args,
        }
    }

    fn none_left(&self) -> Result<(), String> {
        match self.0.keys().next() {
            Some(key) => Err(format!("the scenario has no parameter {key:?}")),
            None => Ok(()),
        }
    }
}

fn ascii_text(words: usize) -> String {
    const WORDS: [&str; 26] = [
        "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india",
        "juliett", "kilo", "lima", "mike", "november", "oscar", "papa", "quebec", "romeo",
        "sierra", "tango", "uniform", "victor", "whiskey", "xray", "yankee", "zulu",
    ];
    let words: Vec<_> = (0..words)
        .map(|i| format!("{}{i}", WORDS[i % WORDS.len()]))
        .collect();
    words.join(" ")
}

fn utf8_text(words: usize) -> String {
    // Accents, four scripts, joined emoji, a flag, a combining mark, a ligature of one character,
    // a change of direction, letters outside the basic plane, a space that does not break.
    const WORDS: [&str; 16] = [
        "naïve",
        "Größe",
        "žluťoučký",
        "кот",
        "Ωμέγα",
        "日本語",
        "한국어",
        "🙂",
        "👩\u{200d}👩\u{200d}👧\u{200d}👦",
        "🇨🇭",
        "e\u{301}",
        "﷽",
        "\u{202e}RTL\u{202c}",
        "𝔘𝔫𝔦",
        "ﬀ",
        "\u{a0}nbsp",
    ];
    let words: Vec<_> = (0..words).map(|i| WORDS[i % WORDS.len()]).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directive_ends_where_its_parameters_end() {
        assert_eq!(
            expected_text("please fake:plain words=2 id=7 and no more=x"),
            "alpha0 bravo1"
        );
        assert_eq!(
            expected_text("\"fake:plain text=good+day\" words=9"),
            "good day"
        );
    }

    #[test]
    fn a_step_that_fails_first_says_when_it_recovered() {
        assert_eq!(expected_text("fake:error times=2"), "Recovered at call 3.");
        assert_eq!(expected_texts("fake:badjson"), Vec::<String>::new());
    }

    #[test]
    fn each_step_has_its_text() {
        assert_eq!(
            expected_texts("fake:loop n=2"),
            ["step 0. ", "step 1. ", "Done."]
        );
        let script = r#"fake:{"steps":[{"text":"a"},{"text":"b fake:plain"}]} please"#;
        assert_eq!(expected_text(script), "ab fake:plain");
    }

    #[test]
    fn mistakes_are_named() {
        let error = |script| steps(script).unwrap_err();
        assert_eq!(
            error("fake:plian"),
            r#"script "fake:plian": there is no scenario "plian""#
        );
        assert!(error("fake:plain word=2").contains(r#"no parameter "word""#));
        assert!(error("fake:plain words=two").contains("words=two is not a fitting number"));
        assert!(error(r#"fake:{"steps":[{"txt":"a"}]}"#).contains("unknown field `txt`"));
    }
}
