use std::fmt;

use crate::sockets::{Row, is_me, look_up, process_of, rows};

/// The program that listens on a port, as far as the system tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOwner {
    /// The user it runs as.
    pub user: u32,
    /// Its process id and name; `None` if this user may not see them.
    pub process: Option<(u32, String)>,
}

impl fmt::Display for PortOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((id, name)) => write!(f, "{} (process {id})", name.escape_debug()),
            None => write!(f, "a program of user {}", self.user),
        }
    }
}

/// Whether a port is held by another user's program, or may be. `user` is the user of the listening
/// program, if known: Linux knows it for every listener, other systems tell none.
#[must_use]
pub fn is_foreign(user: Option<u32>) -> bool {
    user.map_or(cfg!(target_os = "linux"), |user| !is_me(user))
}

/// Finds the program that listens on this TCP port of 127.0.0.1. Reads `/proc`, also the open files
/// of all processes, which takes milliseconds; `None` on other systems.
#[must_use]
pub fn port_owner(port: u16) -> Option<PortOwner> {
    let (user, inode) = look_up(|table| listener(table, port).map(|row| (row.user, row.inode)))?;
    Some(PortOwner {
        user,
        process: process_of(inode),
    })
}

/// Finds the user of the program that listens on this TCP port of 127.0.0.1. Reads only the kernel's
/// socket tables; `None` on other systems.
#[must_use]
pub fn port_user(port: u16) -> Option<u32> {
    look_up(|table| listener(table, port).map(|row| row.user))
}

/// Finds the listening socket that is reached at 127.0.0.1 with this port.
pub(crate) fn listener(table: &str, port: u16) -> Option<Row<'_>> {
    const LISTENING: &str = "0A";
    rows(table).find(|row| row.state == LISTENING && row.local.hears(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1770 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41907 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1771 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 41908 1 0000000000000000 20 4 30 10 -1
   2: 0300000A:1771 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 54 1 0000000000000000 100 0 0 10 0
   3: 00000000:1771 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 55 1 0000000000000000 100 0 0 10 0
";

    #[test]
    fn whoever_is_reached_on_this_machine_is_found_and_nobody_on_another_address() {
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
        let port = listener.local_addr().unwrap().port();
        let found = port_owner(port).unwrap();
        assert_eq!(found.process.unwrap().0, std::process::id());
        assert_eq!(port_user(port), Some(found.user));
    }
}
