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
    let listener = tables.iter().find_map(|table| {
        let text = std::fs::read_to_string(table).ok()?;
        listener(&text, port)
    })?;
    Some(Holder {
        user: listener.user,
        process: process_of(listener.inode),
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Listener {
    user: u32,
    inode: u64,
}

/// Finds the listening socket of a port in the kernel's table.
fn listener(table: &str, port: u16) -> Option<Listener> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (_, at) = fields.next()?.rsplit_once(':')?;
        let is_listening = fields.nth(1)? == "0A";
        if !is_listening || u16::from_str_radix(at, 16).ok()? != port {
            return None;
        }
        let user = fields.nth(3)?.parse().ok()?;
        let inode = fields.nth(1)?.parse().ok()?;
        Some(Listener { user, inode })
    })
}

fn process_of(inode: u64) -> Option<(u32, String)> {
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
        assert_eq!(
            listener(TABLE, 6000),
            Some(Listener {
                user: 1000,
                inode: 41907
            })
        );
        assert_eq!(
            listener(TABLE, 6001),
            Some(Listener {
                user: 33,
                inode: 55
            })
        );
        assert_eq!(listener(TABLE, 6002), None);
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
