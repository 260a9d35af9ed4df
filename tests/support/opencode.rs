//! The real agent: `OpenCode` in a pinned version, a home for it, and its server.

mod home;
mod server;
mod slot;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

pub use home::Home;
pub use server::{Server, ServerOptions};

use crate::process::target_dir;

/// The version that the tests are written for.
pub const VERSION: &str = "1.18.33";

/// The `opencode` executable, installed into the build folder on first use.
///
/// Only the package of this platform is taken: the general one is a launcher around it.
pub fn binary() -> PathBuf {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(install).clone()
}

fn install() -> PathBuf {
    let package = platform_package();
    let name = format!("opencode-{VERSION}");
    let installed = target_dir().join(&name);
    let binary = installed.join(format!("node_modules/{package}/bin/opencode"));

    // One process installs; the others wait here and find it done.
    let lock = File::create(target_dir().join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    if binary.exists() {
        return binary;
    }
    let partial = target_dir().join(format!("{name}.partial"));
    for leftover in [&installed, &partial] {
        if leftover.exists() {
            fs::remove_dir_all(leftover).unwrap();
        }
    }
    fs::create_dir_all(&partial).unwrap();
    let installation = Command::new("npm")
        .args([
            "install",
            "--no-save",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--prefix",
        ])
        .arg(&partial)
        .arg(format!("{package}@{VERSION}"))
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "The tests with a real OpenCode need npm to install it, and npm does not run \
                 ({error}). Install Node.js with npm, or leave these tests out by their names."
            )
        });
    assert!(
        installation.status.success(),
        "npm could not install {package}@{VERSION}, which the tests with a real OpenCode need. It \
         said:\n{}",
        String::from_utf8_lossy(&installation.stderr),
    );
    fs::rename(&partial, &installed).unwrap();
    binary
}

fn platform_package() -> &'static str {
    match std::env::consts::ARCH {
        #[cfg(target_arch = "x86_64")]
        "x86_64" if !std::arch::is_x86_feature_detected!("avx2") => "opencode-linux-x64-baseline",
        "x86_64" => "opencode-linux-x64",
        "aarch64" => "opencode-linux-arm64",
        other => panic!("There is no OpenCode for {other}; run its tests on x86_64 or aarch64."),
    }
}
