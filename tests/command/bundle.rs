//! `recount bundle`: what one program puts into a file, another proves that shares nothing with it but the description.

mod verifier;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use expect_test::expect;
use recount_store::{LogReader, Position, SigningKey};
use recount_tests::place::Place;
use recount_tests::story::BEGIN;

use crate::leaving::with_a_log;

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

/// A place with a log, and `head.json` that signs where it stands.
fn signed() -> Place {
    let place = with_a_log();
    let log = LogReader::open(place.path("data")).unwrap();
    let signed = log.head().unwrap().sign(BEGIN, &key());
    place.write("head.json", serde_json::to_string(&signed).unwrap());
    place
}

fn bundle(place: &Place, redact: &[&str]) -> String {
    let mut args = vec!["bundle", "081", "--signed", "head.json"];
    args.extend(redact.iter().flat_map(|pattern| ["--redact", pattern]));
    place.printed(&args)
}

#[test]
fn a_bundle_is_proven_by_its_description_alone() {
    let place = signed();
    let text = bundle(&place, &[]);
    let log = place.printed(&["log", "081", "--json"]);
    let shown = verifier::verify(&text, &key().public_key().to_string()).unwrap();
    // All events of the session and of its connection meanwhile, as the log has them, and nothing of the other session.
    let lines: Vec<&str> = log.lines().collect();
    let told = lines.iter().map(|line| line.strip_suffix('}').unwrap());
    assert!(told.clone().count() > 15);
    assert_eq!(shown.len(), lines.len());
    for (shown, told) in shown.iter().zip(told) {
        assert!(shown.starts_with(told), "{shown} is not {told}");
    }
    assert_eq!(text, bundle(&place, &[]), "a second one is the same");
    // Nor is it more than that: the verifier knows nothing of ours.
    assert!(!include_str!("bundle/verifier.rs").contains("recount_"));
}

#[test]
fn what_is_withheld_does_not_leave_and_the_rest_is_still_proven() {
    let place = signed();
    let text = bundle(&place, &["любовью", "(?i)IT\\* is said", "^done$"]);
    for secret in ["любовью", "is said", "done"] {
        assert!(!text.contains(secret), "{secret} left in plain");
    }
    let whole = bundle(&place, &[]);
    let key = key().public_key().to_string();
    let shown = verifier::verify(&text, &key).unwrap();
    assert_eq!(
        shown.len() + 3,
        verifier::verify(&whole, &key).unwrap().len()
    );
    // Not in the bytes of a record, either.
    for line in &shown {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let record = BASE64_STANDARD.decode(line["record"].as_str().unwrap());
        let record = String::from_utf8_lossy(&record.unwrap()).into_owned();
        assert!(
            !["любовью", "is said", "done"]
                .iter()
                .any(|secret| record.contains(secret))
        );
    }
    let withheld: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("\"withheld\""))
        .collect();
    expect![[r#"
        {"position":4,"stream":"session/081040g2081040g2","seq":2,"at":"2026-11-22T09:14:03.300000Z","cause":null,"class":"asked","provenance":"live","type":"MessageQueued","withheld":"e43d072d6e1134c1f6616aa1ec827934e745b911567bf0c17391e49ff73d1e79"}
        {"position":19,"stream":"session/081040g2081040g2","seq":12,"at":"2026-11-22T09:14:04.800000Z","cause":12,"class":"observed","provenance":"live","type":"ToolCallEnded","withheld":"6b2d522ef4d0c1717ec5272b38951524941116e5cccbc56b889e66b6d42c3d98"}
        {"position":20,"stream":"session/081040g2081040g2","seq":13,"at":"2026-11-22T09:14:04.900000Z","cause":12,"class":"observed","provenance":"live","type":"OutputAppended","withheld":"48e6c72609b8183177c8adfe70a05c179e5509cad04ac8441dcc6b2162e3123f"}"#]].assert_eq(&withheld.join("\n"));
    place.write("session.bundle", &text);
    place.check(
        &["bundle", "--check", "session.bundle", "--public-key", &key],
        &expect![[r#"
            proven: 15 events of session/081040g2081040g2 and connection/0g2081040g208104, 3 withheld
            by the head at position 24, signed at 2026-11-22T09:14:03.000000Z by ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c
            --- exit 0
        "#]],
    );
    place.check(
        &["bundle", "--check", "session.bundle", "--json"],
        &expect![[r#"
            {"at":"2026-11-22T09:14:03.000000Z","events":15,"hash":"950dae835fb67161111413e0a03c65cec17afb82674b12308f6b26d132458219","others":4,"position":24,"proven":true,"public_key":"ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c","streams":["session/081040g2081040g2","connection/0g2081040g208104"],"trusted":false,"withheld":3}
            --- stderr
            recount: whose key that is, the file alone says: name the one you trust
              --public-key KEY    64 hexadecimal digits, or a file of them or of PEM
            --- exit 0
        "#]],
    );
}

#[test]
fn nothing_in_a_bundle_can_be_changed() {
    let place = signed();
    let text = bundle(&place, &["любовью"]);
    let key = key().public_key().to_string();
    let lines: Vec<&str> = text.lines().collect();
    let refused = |lines: &[String], what: &str| {
        let text = lines.join("\n") + "\n";
        assert!(
            verifier::verify(&text, &key).is_err(),
            "the verifier takes {what}"
        );
        place.write("changed.bundle", &text);
        let checked = place.run(&["bundle", "--check", "changed.bundle", "--public-key", &key]);
        assert_eq!(checked.status.code(), Some(1), "{what}: {checked:#?}");
        assert!(
            checked
                .stderr
                .starts_with("recount: not proven: changed.bundle"),
            "{what}: {checked:#?}"
        );
    };
    let own: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    for n in 0..lines.len() {
        let mut without = own.clone();
        without.remove(n);
        refused(&without, &format!("it without line {n}"));
        let mut twice = own.clone();
        twice.insert(n, own[n].clone());
        refused(&twice, &format!("line {n} twice"));
        if n > 0 {
            let mut swapped = own.clone();
            swapped.swap(n - 1, n);
            refused(&swapped, &format!("line {n} moved"));
        }
        // A digit or a letter of what proves something.
        for name in [
            "\"record\":\"",
            "\"withheld\":\"",
            "\"other\":[\"",
            "\"hash\":\"",
            "\"signature\":\"",
        ] {
            if let Some(at) = own[n].find(name) {
                let mut changed = own.clone();
                let at = at + name.len() + 40;
                let other = if own[n].as_bytes()[at] == b'0' {
                    "1"
                } else {
                    "0"
                };
                changed[n].replace_range(at..=at, other);
                refused(&changed, &format!("line {n} with another {name}"));
            }
        }
    }
    let other = SigningKey::from_seed(&[8; 32]).public_key().to_string();
    assert!(verifier::verify(&text, &other).is_err());
}

#[test]
fn what_is_no_bundle_or_not_a_whole_one_is_said() {
    let place = signed();
    let text = bundle(&place, &[]);
    let lines: Vec<&str> = text.lines().collect();
    place.write("bytes.bundle", [0xff, 0, b'\n']);
    let half = lines[5].len() / 2;
    let half = format!("{}\n{}", lines[..5].join("\n"), &lines[5][..half]);
    place.write("half.bundle", half);
    place.write(
        "headless.bundle",
        lines[..lines.len() - 1].join("\n") + "\n",
    );
    let told = place.told_each(&[
        &["bundle", "--check", "bytes.bundle"],
        &["bundle", "--check", "half.bundle"],
        &["bundle", "--check", "headless.bundle"],
    ]);
    expect![[r#"
        $ recount bundle --check bytes.bundle
        --- stderr
        recount: not proven: bytes.bundle, line 1: the file is not a bundle: its first line is no "recount bundle v1"
        --- exit 1
        $ recount bundle --check half.bundle
        --- stderr
        recount: not proven: half.bundle, line 6: the file is cut short: the signed head is missing
        --- exit 1
        $ recount bundle --check headless.bundle
        --- stderr
        recount: not proven: headless.bundle, its end: the file is cut short: the signed head is missing
        --- exit 1
    "#]].assert_eq(&told);
}

#[test]
fn what_cannot_be_proven_is_not_bundled() {
    let place = signed();
    place.check(
        &["bundle", "081", "--signed", "nowhere.json"],
        &expect![[r#"
            --- stderr
            recount: cannot use the signed head nowhere.json: No such file or directory (os error 2)
              recount sign --key FILE    prints one
            --- exit 1
        "#]],
    );
    let log = LogReader::open(place.path("data")).unwrap();
    let sign = |name: &str, position: u64| {
        let mut head = log.head().unwrap();
        head.position = Position(position);
        let signed = head.sign(BEGIN, &key());
        place.write(name, serde_json::to_string(&signed).unwrap());
    };
    sign("later.json", 99);
    place.check(
        &["bundle", "081", "--signed", "later.json"],
        &expect![[r#"
            --- stderr
            recount: the head that was signed at position 99 is of no use: the log ends before it
              recount sign --key FILE --out head.json    signs where the log stands now
            --- exit 1
        "#]],
    );
    sign("other.json", 2);
    place.check(
        &[
            "bundle",
            "081",
            "--signed",
            "other.json",
            "--out",
            "other.bundle",
        ],
        &expect![[r#"
            --- stderr
            recount: the head that was signed at position 2 is of no use: the log has another one there
              recount sign --key FILE --out head.json    signs where the log stands now
            --- exit 1
        "#]],
    );
    assert!(!place.path("other.bundle").exists());
    let forged = std::fs::read_to_string(place.path("head.json")).unwrap();
    place.write(
        "forged.json",
        forged.replace("\"position\":24", "\"position\":23"),
    );
    place.check(
        &["bundle", "081", "--signed", "forged.json"],
        &expect![[r#"
            --- stderr
            recount: cannot use the signed head forged.json: the signature is not one by the key ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c over this: one of them was changed
            --- exit 1
        "#]],
    );
    place.write("empty.bundle", "");
    place.check(&["bundle", "--check", "empty.bundle"], &expect![[r#"
        --- stderr
        recount: not proven: empty.bundle, its end: the file is not a bundle: its first line is no "recount bundle v1"
        --- exit 1
    "#]]);
}
