//! One target under libFuzzer, built and run by `./x fuzz`. `HEARTH_FUZZ` names the target; without
//! it the targets are listed with their folders.
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
