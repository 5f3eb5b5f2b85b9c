use proto::WorkerId;

/// The host name, restricted to the alphabet of worker names.
pub(crate) fn host_name() -> WorkerId {
    clean(&raw()).unwrap_or_else(|| clean("hearth").expect("a plain word is a name"))
}

fn clean(name: &str) -> Option<WorkerId> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = name
        .trim()
        .chars()
        .map(|c| if fits(c) { c } else { '-' })
        .take(64)
        .collect();
    WorkerId::new(name).ok()
}

#[cfg(unix)]
fn raw() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

#[cfg(not(unix))]
fn raw() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_name_becomes_a_worker_name() {
        for (host, name) in [
            ("box-1.local", "box-1.local"),
            ("Jan's Mac", "Jan-s-Mac"),
            ("żółć", "----"),
        ] {
            assert_eq!(clean(host).unwrap().as_str(), name);
        }
        assert_eq!(clean(&"x".repeat(300)).unwrap().as_str().len(), 64);
        assert_eq!(clean(" "), None);
    }
}
