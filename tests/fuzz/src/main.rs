//! One target under libFuzzer: `./x fuzz` builds and runs it, and takes care of its arguments.
//! `HEARTH_FUZZ` names the target; without it the targets are listed, each with its folders.
#![no_main]

use std::{env, io, io::Write as _, process, sync::OnceLock};

use hearth_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static CHOSEN: OnceLock<&Target> = OnceLock::new();

fuzz_target!(init: choose(), |bytes: &[u8]| {
    if let Some(target) = CHOSEN.get() {
        target.run(bytes);
    }
});

fn choose() {
    let name = env::var("HEARTH_FUZZ").unwrap_or_default();
    if let Some(target) = TARGETS.iter().find(|target| target.name == name) {
        CHOSEN.get_or_init(|| target);
        return;
    }
    let mut out = io::stdout();
    for target in TARGETS {
        let folders: Vec<_> = target
            .folders()
            .map(|at| at.display().to_string())
            .collect();
        drop(writeln!(out, "{} {}", target.name, folders.join(" ")));
    }
    process::exit(i32::from(!name.is_empty()));
}
