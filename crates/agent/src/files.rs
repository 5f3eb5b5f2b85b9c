/// Lets this process have as many open files as the system allows it: most systems start programs
/// with 1,024, fewer than the readers that both local listeners let in.
pub(crate) fn allow_many() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};

        /// Some systems refuse more than this even where they name no limit.
        const ENOUGH: u64 = 10_240;
        let mut limit = getrlimit(Resource::Nofile);
        let wanted = limit.maximum.map_or(ENOUGH, |most| most.min(ENOUGH));
        if limit.current.is_none_or(|now| now >= wanted) {
            return;
        }
        limit.current = Some(wanted);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "no more open files are allowed than before");
        }
    }
}
