//! What the agents of a world do: a function of the world, the message and the run.

use std::time::Duration;

use recount_engine::adapter::scripted::{Script, Step};
use recount_store::{Choice, Prompt};
use serde_json::json;

use crate::dice::Dice;

pub(crate) fn script(seed: u64) -> Script {
    Script::new(move |prompt, run| steps(&Dice::of(seed, &format!("{prompt}/{run}")), prompt, run))
}

/// What they do in a quieter world: mostly what they are asked for, and now and then anything.
pub(crate) fn quieter(seed: u64) -> Script {
    Script::new(move |prompt, run| {
        let dice = Dice::of(seed, &format!("{prompt}/{run}"));
        match dice.below(100) {
            0..15 => return steps(&dice, prompt, run),
            15..18 if run == 1 => {
                return vec![say(&dice, format!("{prompt}? Let me ")), Step::Stall];
            }
            _ => {}
        }
        let mut steps: Vec<_> = (0..dice.below(3))
            .map(|n| Step::Tool {
                name: dice.pick(&["bash", "edit", "read"]).to_owned(),
                input: json!({"command": format!("look at {prompt}, {n}")}),
                output: format!("{n}\n"),
                permission: dice.percent(10).then(|| format!("look at {prompt}")),
                delay: dice.millis(100, 5000),
            })
            .collect();
        steps.push(Step::Text {
            text: format!("About {prompt}: it is done, and the tests pass."),
            chunks: dice.below(8),
            delay: dice.millis(5, 100),
        });
        steps
    })
}

fn steps(dice: &Dice, prompt: &str, run: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    for n in 0..dice.between(1, 4) {
        steps.push(step(dice, prompt, run, n));
        if dice.percent(30) {
            steps.push(say(dice, format!("{prompt}, run {run}, then {n}. ")));
        }
    }
    steps.push(say(dice, format!("That is all about {prompt}.")));
    steps
}

fn say(dice: &Dice, text: String) -> Step {
    Step::Text {
        text,
        chunks: dice.below(6),
        delay: delay(dice),
    }
}

/// Mostly none, now and then seconds.
fn delay(dice: &Dice) -> Duration {
    match dice.below(6) {
        0..3 => Duration::ZERO,
        3 => dice.millis(1, 30),
        4 => dice.millis(30, 500),
        _ => dice.millis(500, 8000),
    }
}

/// Something to ask in words.
fn prompt_of(dice: &Dice, n: u64) -> Prompt {
    let choice = |label: &str| Choice {
        label: label.to_owned(),
        about: format!("It is {label}."),
    };
    Prompt {
        header: format!("Choice {n}"),
        text: format!("Which shall it be, {n}?"),
        options: vec![choice("one"), choice("other")],
        multiple: dice.percent(30),
        custom: dice.percent(50),
    }
}

fn step(dice: &Dice, prompt: &str, run: u32, n: u64) -> Step {
    match dice.below(100) {
        0..40 => say(dice, format!("{prompt}, run {run}, piece {n}: ünï 漢字. ")),
        40..52 => Step::Reasoning {
            text: format!("About {prompt} I think {n} times. "),
            chunks: dice.below(4),
            delay: delay(dice),
        },
        52..59 => Step::Question(
            (0..dice.between(1, 2))
                .map(|n| prompt_of(dice, n))
                .collect(),
        ),
        59..80 => Step::Tool {
            name: dice.pick(&["bash", "edit"]).to_owned(),
            input: json!({"command": format!("echo {n}")}),
            output: format!("{n}\n"),
            permission: dice.percent(50).then(|| format!("echo {n}")),
            delay: delay(dice),
        },
        80..88 => Step::Retry {
            reason: "the model is overloaded".to_owned(),
            wait: dice.millis(100, 40_000),
        },
        88..92 => Step::Fail {
            name: "APIError".to_owned(),
            reason: "the model failed".to_owned(),
        },
        // What dies in every run would only show how many there may be.
        92..97 if run < 3 => Step::Die,
        97 if run < 3 => Step::DieEnding,
        98 if run < 3 => Step::Stall,
        _ => say(dice, format!("{prompt} at last. ")),
    }
}
