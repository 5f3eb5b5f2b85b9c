//! The limit of open files, of which every connection uses one.

/// Number of files that a program has open besides its connections: stores, listeners, logs.
const BESIDE: u64 = 256;

/// Raises the limit of open files so that this many connections fit, as far as the system allows.
/// Most systems start programs with 1,024. Logs a warning if the limit stays too low.
pub fn allow(connections: usize) {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};

        let wanted = u64::try_from(connections).unwrap_or(u64::MAX);
        let wanted = wanted.saturating_add(BESIDE);
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current.is_none_or(|now| now >= wanted) {
            return;
        }
        let most = limit.maximum.map_or(wanted, |most| most.min(wanted));
        limit.current = Some(most);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files cannot be raised");
        } else if most < wanted {
            tracing::warn!(
                allowed = most,
                wanted,
                "the system allows fewer open files than connections; raise `ulimit -n`"
            );
        }
    }
    #[cfg(not(unix))]
    let _ = connections;
}

#[cfg(all(test, unix))]
mod tests {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    #[test]
    fn as_many_files_may_be_open_as_connections_need_and_the_system_allows() {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let current = Some(512);
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
        let allowed = || getrlimit(Resource::Nofile).current;
        allow(100);
        assert_eq!(allowed(), Some(512), "enough already");
        allow(1_000);
        assert_eq!(allowed(), Some(1_256));
        if let Some(maximum) = maximum {
            allow(usize::try_from(maximum).unwrap());
            assert_eq!(allowed(), Some(maximum));
        }
    }
}
