//! A home for an agent: its own folders, its configuration, its environment.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use super::binary;
use super::slot::Slot;
use crate::process::marker::Marker;
use crate::provider::Provider;

/// Set, it leaves the folder of every home behind, to look into the log of a test that failed.
const KEEP: &str = "RECOUNT_KEEP_HOMES";

/// A scratch home. Processes started in it are killed, and it is removed, when it is dropped.
///
/// Few exist at once, since each is there for a server: a test that has one must not wait for another.
#[derive(Debug)]
pub struct Home {
    // Before the folder: what still runs would write into it.
    marker: Marker,
    dir: TempDir,
    // Last: the next home waits until nothing of this one is left.
    _slot: Slot,
}

impl Home {
    /// A home where the model is a scripted provider, and where bash asks before it runs.
    pub fn new(provider: &Provider) -> Self {
        let slot = Slot::take();
        // Not below the sources: the agent would take their repository for its project.
        let dir = tempfile::Builder::new()
            .prefix("recount-test-")
            .disable_cleanup(std::env::var_os(KEEP).is_some())
            .tempdir()
            .unwrap();
        let home = Self {
            marker: Marker::new(),
            dir,
            _slot: slot,
        };
        for folder in [
            "project",
            "tmp",
            "data",
            "state",
            "cache",
            "config/opencode/node_modules",
        ] {
            fs::create_dir_all(home.path(folder)).unwrap();
        }
        let config = json!({
            "autoupdate": false,
            "share": "disabled",
            "snapshot": false,
            "lsp": false,
            "formatter": false,
            "enabled_providers": ["fake"],
            "model": "fake/fake-1",
            "small_model": "fake/fake-small",
            "permission": { "bash": "ask", "edit": "allow", "webfetch": "deny", "websearch": "deny" },
            "provider": { "fake": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "Scripted model",
                "options": { "baseURL": provider.url(), "apiKey": "fake-key" },
                "models": {
                    "fake-1": { "tool_call": true, "limit": { "context": 200_000, "output": 32_000 } },
                    "fake-small": { "limit": { "context": 200_000, "output": 32_000 } },
                },
            } },
        });
        home.write("config/opencode/opencode.json", &config.to_string());
        // OpenCode installs this package behind the scenes wherever a lock file does not name it.
        let locked =
            json!({ "packages": { "": { "dependencies": { "@opencode-ai/plugin": "*" } } } });
        home.write("config/opencode/package-lock.json", &locked.to_string());
        home
    }

    /// The folder that the agent works in.
    pub fn project_dir(&self) -> PathBuf {
        self.path("project")
    }

    /// A path inside this home.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(inside)
    }

    /// The whole environment for what runs here: nothing of the surroundings gets in.
    pub fn env(&self) -> Vec<(String, String)> {
        let path = |inside: &str| self.path(inside).into_os_string().into_string().unwrap();
        // `opencode` is found first where the pinned version is.
        let programs = binary().parent().unwrap().to_owned();
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let programs = [programs]
            .into_iter()
            .chain(std::env::split_paths(&inherited));
        let programs = std::env::join_paths(programs)
            .unwrap()
            .into_string()
            .unwrap();
        let switched_off = [
            "AUTOUPDATE",
            "MODELS_FETCH",
            "DEFAULT_PLUGINS",
            "LSP_DOWNLOAD",
            "SHARE",
            "EMBEDDED_WEB_UI",
            "CLAUDE_CODE",
            "EXTERNAL_SKILLS",
            "PROJECT_CONFIG",
        ];
        let places = [
            ("PATH", programs),
            ("HOME", path("")),
            ("TMPDIR", path("tmp")),
            ("XDG_DATA_HOME", path("data")),
            ("XDG_CONFIG_HOME", path("config")),
            ("XDG_STATE_HOME", path("state")),
            ("XDG_CACHE_HOME", path("cache")),
            ("OPENCODE_PURE", "1".into()),
        ];
        places
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .chain(switched_off.map(|what| (format!("OPENCODE_DISABLE_{what}"), "1".to_owned())))
            .chain([self.marker.env()])
            .collect()
    }

    /// A command that runs in the project's folder, with the environment of this home alone.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .envs(self.env())
            .current_dir(self.project_dir());
        command
    }

    /// A program that runs `opencode` with the environment of this home, for an engine inside the test:
    /// what that starts inherits the environment of the test itself.
    pub fn agent_program(&self) -> PathBuf {
        let path = self.path("opencode");
        let mut script = "#!/bin/sh\n".to_owned();
        for (name, value) in self.env() {
            writeln!(script, "export {name}='{value}'").unwrap();
        }
        writeln!(script, "exec '{}' \"$@\"", binary().display()).unwrap();
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    /// The mark of everything that runs here.
    pub fn marker(&self) -> &Marker {
        &self.marker
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
    }
}
