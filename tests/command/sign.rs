//! `recount key`, `sign` and `verify --signed`: what a signed head proves, and what is told where it does not.

use std::fs;

use expect_test::expect;
use recount_store::{Event, Head, Log, LogReader, NewEvent, SigningKey, StreamId, Timestamp};
use recount_tests::command::VERB_TIMEOUT;
use recount_tests::files::{set_mode, storage};
use recount_tests::place::Place;
use recount_tests::story::{BEGIN, OTHER, interrupted, record};
use redb::{TableDefinition, TableHandle as _};
use serde_json::{Value, json};

/// A key as `openssl genpkey -algorithm ed25519` writes it.
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIHc9mtqX5uB5QO61G0rYyRVi3F4cCLyxCJ9OvzH12Yf9
-----END PRIVATE KEY-----
";
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA/UuktVsBzQhoNk9Z0zmO+gstoC5YG9ah288LVD8+P0Y=
-----END PUBLIC KEY-----
";
const PUBLIC_KEY_HEX: &str = "fd4ba4b55b01cd0868364f59d3398efa0b2da02e581bd6a1dbcf0b543f3e3f46";

/// Puts the key in a place, for its owner alone.
fn with_a_key(place: Place) -> Place {
    place.write("key.pem", PRIVATE_KEY);
    place.write("key.pub", PUBLIC_KEY);
    set_mode(&place.path("key.pem"), 0o600);
    place
}

/// Writes the head of a log, signed at a time that never changes.
fn sign(place: &Place, name: &str, change: impl FnOnce(&mut Head)) {
    let mut head = LogReader::open(place.data()).unwrap().head().unwrap();
    change(&mut head);
    let key = SigningKey::from_pem(PRIVATE_KEY).unwrap();
    let signed = head.sign(BEGIN, &key);
    place.write(name, serde_json::to_string(&signed).unwrap());
}

/// Appends an event, which settles by itself.
fn append_one(place: &Place) {
    let closed = NewEvent::live(Event::SessionClosed, BEGIN);
    record(&place.data(), [(StreamId::Session(OTHER), vec![closed])]);
}

/// Changes the rows of blocks in the log's file; what is derived from them goes.
fn tamper(place: &Place, change: impl FnOnce(&mut redb::Table<'_, u64, &'static [u8]>)) {
    let database = storage(&place.data());
    let transaction = database.begin_write().unwrap();
    for table in transaction.list_tables().unwrap().collect::<Vec<_>>() {
        if !["meta", "blocks"].contains(&table.name()) {
            transaction.delete_table(table).unwrap();
        }
    }
    let blocks: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("blocks");
    change(&mut transaction.open_table(blocks).unwrap());
    transaction.commit().unwrap();
}

#[test]
fn a_key_is_made_once_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let output = place.run(&["key", "new", "key.pem"]);
    let public = output.stdout.trim();
    let text = place.text(&output).replace(public, "PUBLIC");
    expect![[r#"
        PUBLIC
        --- stderr
        the private key is in key.pem: keep it from whoever can change the log
        --- exit 0
    "#]]
    .assert_eq(&text);
    let file = place.path("key.pem");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode(), 0o100_600);
    let pem = fs::read_to_string(&file).unwrap();
    let key = SigningKey::from_pem(&pem).unwrap();
    assert_eq!(key.public_key().to_string(), public);

    place.check(
        &["key", "new", "key.pem"],
        &expect![[r#"
        --- stderr
        recount: key.pem is there already; it was left as it is
          name a file that does not exist
        --- exit 1
    "#]],
    );
    place.check(
        &["key", "new", "no/where/key.pem"],
        &expect![[r#"
        --- stderr
        recount: cannot make no/where/key.pem: No such file or directory (os error 2)
        --- exit 1
    "#]],
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), pem);
    // No data directory was needed, and none was made.
    assert_eq!(place.contents().len(), 1);

    let made = place.object(&["key", "new", "other.pem", "--json"]);
    let other = fs::read_to_string(place.path("other.pem")).unwrap();
    assert_ne!(other, pem);
    let public = SigningKey::from_pem(&other).unwrap().public_key();
    assert_eq!(
        made,
        json!({"public_key": public.to_string(), "file": "other.pem"})
    );
}

#[test]
fn what_was_signed_is_proven_and_so_is_what_grew_out_of_it() {
    let place = with_a_key(Place::holding(interrupted()));
    let before = place.contents();
    let signed = place.object(&["sign", "--key", "key.pem"]);
    assert_eq!(place.contents(), before, "it only reads");
    let head = LogReader::open(place.data()).unwrap().head().unwrap();
    let now = Timestamp::from_system(std::time::SystemTime::now());
    let at = Timestamp(signed["at_us"].as_u64().unwrap());
    assert!(at <= now && now.since(at) < VERB_TIMEOUT);
    let key = SigningKey::from_pem(PRIVATE_KEY).unwrap();
    assert_eq!(signed, serde_json::to_value(head.sign(at, &key)).unwrap());

    let told = place.told(&["sign", "--key", "key.pem", "--out", "head.json"]);
    expect![[r#"
        signed: position 24 with hash 5b6364fa81bc13f46f1f2326b10e1a5471e1aaa3e6e7a76ad24de6ede561742a
        --- exit 0
    "#]].assert_eq(&told);
    place.printed(&["verify", "--signed", "head.json", "--public-key", "key.pub"]);
    place.check(
        &["sign", "--key", "key.pem", "--out", "head.json"],
        &expect![[r#"
            --- stderr
            recount: head.json is there already; it was left as it is
              name a file that does not exist
            --- exit 1
        "#]],
    );

    // With a time that never changes, and events that came later.
    sign(&place, "head.json", |_| {});
    append_one(&place);
    place.check(
        &[
            "verify",
            "--signed",
            "head.json",
            "--public-key",
            PUBLIC_KEY_HEX,
        ],
        &expect![[r#"
            whole: 25 events in 3 streams
            head 8c47964f2a296c5f66888f72e99be85d4d1bfb66c198968ac8de05c89304673b at position 25
            as signed up to position 24 at 2026-11-22T09:14:03.000000Z by fd4ba4b55b01cd0868364f59d3398efa0b2da02e581bd6a1dbcf0b543f3e3f46
            --- exit 0
        "#]],
    );
    place.check(&["verify", "--signed", "head.json"], &expect![[r#"
        whole: 25 events in 3 streams
        head 8c47964f2a296c5f66888f72e99be85d4d1bfb66c198968ac8de05c89304673b at position 25
        as signed up to position 24 at 2026-11-22T09:14:03.000000Z by fd4ba4b55b01cd0868364f59d3398efa0b2da02e581bd6a1dbcf0b543f3e3f46
        --- stderr
        recount: whose key that is, the file alone says: name the one you trust
          --public-key KEY    64 hexadecimal digits, or a file of them or of PEM
        --- exit 0
    "#]]);
    let told = place.json(&["verify", "--signed", "head.json", "--json"]);
    assert_eq!(told[0]["events"], 25);
    assert_eq!(
        told[0]["signed"],
        json!({
            "position": 24,
            "hash": head.hash.to_string(),
            "at": "2026-11-22T09:14:03.000000Z",
            "public_key": PUBLIC_KEY_HEX,
            "trusted": false,
        })
    );
}

#[test]
fn what_is_not_as_it_was_signed_is_told_apart() {
    let place = with_a_key(Place::holding(interrupted()));
    append_one(&place);
    append_one(&place);
    sign(&place, "head.json", |_| {});
    let verify = ["verify", "--signed", "head.json", "--public-key", "key.pub"];

    // Somebody else's key; a changed head; a log of another time.
    let other = SigningKey::from_seed(&[8; 32]).public_key().to_string();
    place.check(
        &["verify", "--signed", "head.json", "--public-key", &other],
        &expect![[r#"
            not proven
            --- stderr
            recount: the signed head proves nothing: it was signed with the key fd4ba4b55b01cd0868364f59d3398efa0b2da02e581bd6a1dbcf0b543f3e3f46, not with 1398f62c6d1a457c51ba6a4b5f3dbd2f69fca93216218dc8997e416bd17d93ca
              name the key that signed, if you trust it; else get the file again from where it was kept
            --- exit 1
        "#]],
    );
    let signed = fs::read_to_string(place.path("head.json")).unwrap();
    place.write("changed.json", signed.replace(":26,", ":25,"));
    place.check(&["verify", "--signed", "changed.json"], &expect![[r#"
        not proven
        --- stderr
        recount: the signed head proves nothing: the signature is not one by the key fd4ba4b55b01cd0868364f59d3398efa0b2da02e581bd6a1dbcf0b543f3e3f46 over this: one of them was changed
          get the file again from where it was kept; the log was not looked at
        --- exit 1
    "#]]);
    place.write(
        "newer.json",
        signed.replace("\"log_format\":1,", "\"log_format\":77,"),
    );
    place.check(&["verify", "--signed", "newer.json"], &expect![[r#"
        not proven
        --- stderr
        recount: the signed head proves nothing here: the signed head is of a log of format 77, and this release reads up to 1: use a newer one
          recount --version    says which release this is
        --- exit 1
    "#]]);
    sign(&place, "other.json", |head| head.hash.0 = [7; 32]);
    place.check(&["verify", "--signed", "other.json"], &expect![[r#"
        not as signed
        --- stderr
        recount: the log is not the one that was signed: an event at or before position 26 is not the one that was signed: the hash there is 4f800c985a7d76d021747adc3ef5374d2b23316e8c4156240bef6a02492a2872, and was 0707070707070707070707070707070707070707070707070707070707070707
          it was written again, or is another log; older signed heads narrow down where it begins
        --- exit 1
    "#]]);

    // The last event is gone: the log alone cannot know.
    tamper(&place, |blocks| drop(blocks.remove(26).unwrap()));
    place.printed(&["verify"]);
    place.check(&verify, &expect![[r#"
        not as signed
        --- stderr
        recount: the log is not the one that was signed: events are missing at the end: the log ends at position 25, and was signed up to 26
          what is there is whole and can be read: recount sessions
        --- exit 1
    "#]]);
    let json = |args: &[&str]| -> Value {
        let output = place.run(&[args, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(1), "{output:#?}");
        serde_json::from_str(&output.stdout).unwrap()
    };
    let short = json(&verify);
    assert_eq!(
        (&short["reason"], &short["position"]),
        (&json!("short"), &json!(26))
    );
    let changed = json(&["verify", "--signed", "changed.json"]);
    assert_eq!(
        (&changed["reason"], &changed["position"]),
        (&json!("bad_signature"), &Value::Null)
    );

    // An event before others is gone.
    append_one(&place);
    tamper(&place, |blocks| drop(blocks.remove(25).unwrap()));
    place.check(
        &verify,
        &expect![[r#"
            not whole
            --- stderr
            recount: the log is not whole: the log is damaged at position 25: it is missing
              recount doctor HERE/data                             says what is wrong with it, and what to do
              recount salvage HERE/data/log.redb --into NEW-DIR    takes out what can still be proven
            --- exit 1
        "#]],
    );
    place.check(
        &["verify"],
        &expect![[r#"
            not whole
            --- stderr
            recount: the log is not whole: the log is damaged at position 25: it is missing
              recount doctor HERE/data                             says what is wrong with it, and what to do
              recount salvage HERE/data/log.redb --into NEW-DIR    takes out what can still be proven
            --- exit 1
        "#]],
    );
    place.check(
        &["sign", "--key", "key.pem", "--out", "worse.json"],
        &expect![[r#"
            --- stderr
            recount: nothing was signed: the log is damaged at position 25: it is missing
              recount doctor HERE/data                             says what is wrong with it, and what to do
              recount salvage HERE/data/log.redb --into NEW-DIR    takes out what can still be proven
            --- exit 1
        "#]],
    );
    assert!(!place.path("worse.json").exists());
    let damaged = json(&verify);
    assert_eq!(
        damaged,
        json!({
            "ok": false,
            "reason": "corrupt",
            "position": 25,
            "frame": null,
            "what": "it is missing",
        })
    );
}

#[test]
fn files_that_cannot_be_used_to_sign_or_verify() {
    let place = with_a_key(Place::holding(interrupted()));
    sign(&place, "head.json", |_| {});
    place.write("text", "once upon a time");
    set_mode(&place.path("text"), 0o600);
    place.write("open.pem", PRIVATE_KEY);
    set_mode(&place.path("open.pem"), 0o644);
    place.write("long", "x".repeat(100_000));
    let told = place.told_each(&[
        &["sign", "--key", "nosuch.pem"],
        &["sign", "--key", "open.pem"],
        &["sign", "--key", "text"],
        &["sign", "--key", "key.pub"],
        &["verify", "--signed", "nosuch.json"],
        &["verify", "--signed", "text"],
        &["verify", "--signed", "long"],
        &["verify", "--signed", "head.json", "--public-key", "nosuch"],
        &["verify", "--signed", "head.json", "--public-key", "key.pem"],
        &["verify", "--signed", "head.json", "latest"],
        &["verify", "--public-key", "key.pub"],
    ]);
    expect![[r#"
        $ recount sign --key nosuch.pem
        --- stderr
        recount: cannot use the key nosuch.pem: No such file or directory (os error 2)
          recount key new FILE    makes one
        --- exit 1
        $ recount sign --key open.pem
        --- stderr
        recount: cannot use the key open.pem: others may read or change it (its mode is 644)
          chmod 600 open.pem    keeps it to you; if others had it, make a new one
        --- exit 1
        $ recount sign --key text
        --- stderr
        recount: cannot use the key text: not a private ed25519 key in PEM (PKCS#8, not encrypted): it does not begin with -----BEGIN PRIVATE KEY-----
          recount key new FILE    makes one
        --- exit 1
        $ recount sign --key key.pub
        --- stderr
        recount: cannot use the key key.pub: not a private ed25519 key in PEM (PKCS#8, not encrypted): it begins with -----BEGIN PUBLIC KEY-----
          recount key new FILE    makes one
        --- exit 1
        $ recount verify --signed nosuch.json
        --- stderr
        recount: cannot use the signed head nosuch.json: No such file or directory (os error 2)
          recount sign --key FILE    prints one
        --- exit 1
        $ recount verify --signed text
        --- stderr
        recount: cannot use the signed head text: expected value at line 1 column 1
          recount sign --key FILE    prints one
        --- exit 1
        $ recount verify --signed long
        --- stderr
        recount: cannot use the signed head long: it is far longer than it should be
          recount sign --key FILE    prints one
        --- exit 1
        $ recount verify --signed head.json --public-key nosuch
        --- stderr
        recount: cannot use the public key nosuch: No such file or directory (os error 2)
          --public-key takes 64 hexadecimal digits, or a file of them or of PEM
        --- exit 1
        $ recount verify --signed head.json --public-key key.pem
        --- stderr
        recount: cannot use the public key key.pem: not a public ed25519 key (PEM, or 64 hexadecimal digits): it begins with -----BEGIN PRIVATE KEY-----
          --public-key takes 64 hexadecimal digits, or a file of them or of PEM
        --- exit 1
        $ recount verify --signed head.json latest
        --- stderr
        error: the argument '--signed <FILE>' cannot be used with '[ID]'

        Usage: recount verify --signed <FILE> --data <DIR> [ID]

        For more information, try '--help'.
        --- exit 2
        $ recount verify --public-key key.pub
        --- stderr
        error: the following required arguments were not provided:
          --signed <FILE>

        Usage: recount verify --signed <FILE> --public-key <KEY|FILE> --data <DIR> [ID]

        For more information, try '--help'.
        --- exit 2
    "#]].assert_eq(&told);

    let empty = with_a_key(Place::new());
    drop(Log::open(empty.data()).unwrap());
    empty.check(
        &["sign", "--key", "key.pem"],
        &expect![[r#"
        --- stderr
        recount: the log is empty: there is nothing to sign
          recount sessions    shows what there is
        --- exit 1
    "#]],
    );
}
