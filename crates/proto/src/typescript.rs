//! The pages' types, written from ours: `UPDATE=1` writes them, a test compares.

use std::{fs, path::Path};

use ts_rs::{Config, TS};

use crate::{
    Op,
    status::{
        CarrierKind, Hop, HopState, LiveJob, Phase, Publisher, Status,
        pair::{Allowed, Pairs, Program, Waiting},
    },
};

fn written() -> String {
    let config = Config::new().with_large_int("number");
    let mut text =
        "// Written from crates/proto: UPDATE=1 cargo test -p hearth-proto typescript\n".to_owned();
    let mut write = |docs: Option<String>, decl: String| {
        let docs = docs.unwrap_or_default();
        text += &format!("\n{docs}export {decl}\n");
    };
    macro_rules! write {
        ($($type:ty),*) => { $(write(<$type as TS>::docs(), <$type as TS>::decl(&config));)* };
    }
    write!(
        Phase,
        HopState,
        Hop, CarrierKind, Op, LiveJob, Publisher, Status, Program, Waiting, Allowed, Pairs
    );
    text
}

#[test]
fn the_pages_types_are_those_of_the_wire() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui/src/lib/wire.ts");
    let written = written();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &written).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap();
    assert!(
        kept == written,
        "run UPDATE=1 cargo test -p hearth-proto typescript"
    );
}
