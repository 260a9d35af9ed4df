//! `recount completions` and `recount man`: what shells and people look up about the command.

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::Cli;
use crate::complete;
use crate::failure::Failure;
use crate::output::Output;

/// Prints what a shell has to know.
pub(crate) fn completions(shell: Shell, output: &mut Output) -> Result<(), Failure> {
    output.text(&complete::script(shell))?;
    Ok(())
}

/// Prints the manual page of the command; with `folder`, writes that and one for each verb into it, and lists them.
pub(crate) fn man(folder: Option<&Path>, json: bool, output: &mut Output) -> Result<(), Failure> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let Some(folder) = folder else {
        output.text(&page(&command)?)?;
        return Ok(());
    };
    let cannot = |error| {
        let what = format!("cannot write the manual into {}", folder.display());
        Failure::because(what, error)
    };
    fs::create_dir_all(folder).map_err(cannot)?;
    for (name, page) in pages(&command)? {
        let file = folder.join(name);
        fs::write(&file, page).map_err(cannot)?;
        if json {
            output.json(&serde_json::json!({ "file": file }))?;
        } else {
            output.line(&file.display().to_string())?;
        }
    }
    Ok(())
}

/// The pages of a command and of its verbs, each with the name of its file.
fn pages(command: &clap::Command) -> Result<Vec<(String, String)>, Failure> {
    // Joined with hyphens, as the pages of git's verbs are.
    let name = command.get_display_name().unwrap_or(command.get_name());
    let name = name.to_owned();
    let mut pages = vec![(format!("{name}.1"), page(command)?)];
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        pages.extend(self::pages(verb)?);
    }
    Ok(pages)
}

fn page(command: &clap::Command) -> Result<String, Failure> {
    let mut page = Vec::new();
    let name = command.get_display_name().unwrap_or(command.get_name());
    let manual = Man::new(command.clone()).title(name.to_uppercase());
    manual.render(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
