//! The kernel's counters of a process: CPU time, waits, memory.

use std::{fs, io, time::Duration};

/// Counters of one process, all threads together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// CPU time.
    pub(crate) cpu: Duration,
    /// Number of voluntary context switches; each is a wake-up.
    pub(crate) waits: u64,
    /// Proportional set size in KiB.
    pub(crate) pss: u64,
    /// Resident set size in KiB.
    pub(crate) rss: u64,
}

impl Usage {
    /// Reads the counters of one process.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let mut usage = Self::default();
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?.path();
            let Ok(schedule) = fs::read_to_string(thread.join("schedstat")) else {
                continue;
            };
            let nanos = schedule
                .split_whitespace()
                .next()
                .and_then(|text| text.parse().ok());
            usage.cpu += Duration::from_nanos(nanos.unwrap_or(0));
            let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
            usage.waits += field(&status, "voluntary_ctxt_switches:");
        }
        let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        usage.pss = field(&memory, "Pss:");
        usage.rss = field(&memory, "Rss:");
        Ok(usage)
    }

    /// Reads the counters of a process and all its descendants.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn of_tree(pid: u32) -> io::Result<Self> {
        let mut total = Self::of(pid)?;
        for child in children(pid)? {
            let one = Self::of_tree(child).unwrap_or_default();
            total.cpu += one.cpu;
            total.waits += one.waits;
            total.pss += one.pss;
            total.rss += one.rss;
        }
        Ok(total)
    }

    /// The difference to `earlier`; memory is the later value.
    pub(crate) fn since(self, earlier: Self) -> Self {
        let cpu = self.cpu.saturating_sub(earlier.cpu);
        Self {
            cpu,
            waits: self.waits.saturating_sub(earlier.waits),
            ..self
        }
    }
}

fn children(pid: u32) -> io::Result<Vec<u32>> {
    let mut all = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let list = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        all.extend(
            list.split_whitespace()
                .filter_map(|child| child.parse::<u32>().ok()),
        );
    }
    Ok(all)
}

fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss >= usage.pss && usage.pss > 0, "{usage:?}");
        assert!(usage.cpu > Duration::ZERO, "{usage:?}");
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "nonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t3\n";
        assert_eq!(field(text, "voluntary_ctxt_switches:"), 3);
    }
}
