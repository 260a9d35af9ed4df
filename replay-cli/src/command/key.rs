//! `recount key`: keys to sign with.

use std::path::Path;

use recount_store::SigningKey;
use serde_json::json;

use crate::failure::Failure;
use crate::key_file;
use crate::output::{Output, note};

/// Makes a pair of keys: the private one into a new file, the public one printed.
pub(crate) fn new(file: &Path, json: bool, output: &mut Output) -> Result<(), Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Failure::because("the system gives no random numbers", error))?;
    let key = SigningKey::from_seed(&seed);
    key_file::create(file, true, &key.to_pem())?;
    let public_key = key.public_key().to_string();
    if json {
        output.json(&json!({"public_key": public_key, "file": file}))?;
    } else {
        output.line(&public_key)?;
        note(&format!(
            "the private key is in {}: keep it from whoever can change the log",
            file.display()
        ));
    }
    Ok(())
}
