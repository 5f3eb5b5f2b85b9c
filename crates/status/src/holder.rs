use std::fmt;

/// The program that listens on a port, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The user it runs as.
    pub user: u32,
    /// Its number and name; `None` if it belongs to another user.
    pub process: Option<(u32, String)>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((id, name)) => write!(f, "{} (process {id})", name.escape_debug()),
            None => write!(f, "a program of user {}", self.user),
        }
    }
}

/// Who listens on this TCP port. Looks through `/proc`, which takes milliseconds; knows nothing
/// on other systems.
#[must_use]
pub fn holder(port: u16) -> Option<Holder> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let (user, inode) = tables.iter().find_map(|table| {
        let text = std::fs::read_to_string(table).ok()?;
        listener(&text, port).map(|row| (row.user, row.inode))
    })?;
    Some(Holder {
        user,
        process: process_of(inode),
    })
}

/// One socket in the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    pub(crate) local: (&'a str, u16),
    pub(crate) remote: (&'a str, u16),
    pub(crate) state: &'a str,
    pub(crate) user: u32,
    pub(crate) inode: u64,
}

/// The sockets in the kernel's table; what is damaged is left out.
pub(crate) fn rows(table: &str) -> impl Iterator<Item = Row<'_>> {
    let end = |text: &'_ str| {
        let (address, port) = text.rsplit_once(':')?;
        Some((address.len(), u16::from_str_radix(port, 16).ok()?))
    };
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let (user, inode) = (fields.nth(3)?, fields.nth(1)?);
        let ((local_ends, local_port), (remote_ends, remote_port)) = (end(local)?, end(remote)?);
        Some(Row {
            local: (local.get(..local_ends)?, local_port),
            remote: (remote.get(..remote_ends)?, remote_port),
            state,
            user: user.parse().ok()?,
            inode: inode.parse().ok()?,
        })
    })
}

/// Finds the listening socket of a port.
fn listener(table: &str, port: u16) -> Option<Row<'_>> {
    const LISTENING: &str = "0A";
    rows(table).find(|row| row.state == LISTENING && row.local.1 == port)
}

pub(crate) fn process_of(inode: u64) -> Option<(u32, String)> {
    let wanted = format!("socket:[{inode}]");
    std::fs::read_dir("/proc")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let id: u32 = entry.file_name().to_str()?.parse().ok()?;
            let mut files = std::fs::read_dir(entry.path().join("fd")).ok()?.flatten();
            files.find(|file| {
                std::fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == &*wanted)
            })?;
            let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            Some((id, name.trim_end().to_owned()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1770 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41907 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1771 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 41908 1 0000000000000000 20 4 30 10 -1
   2: 00000000:1771 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 55 1 0000000000000000 100 0 0 10 0
";

    #[test]
    fn the_listening_socket_is_found_in_the_table() {
        let found = |port| listener(TABLE, port).map(|row| (row.user, row.inode));
        assert_eq!(found(6000), Some((1000, 41907)));
        assert_eq!(found(6001), Some((33, 55)));
        assert_eq!(found(6002), None);
    }

    #[test]
    fn a_damaged_table_is_no_panic() {
        for cut in 0..TABLE.len() {
            let _ = listener(&TABLE[..cut], 6001);
            let _ = listener(&TABLE[cut..], 6001);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_very_process_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = holder(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(found.process.unwrap().0, std::process::id());
    }
}
