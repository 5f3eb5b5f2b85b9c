//! Which program is at the other end of a connection, as far as the system tells.

use std::net::SocketAddr;

use proto::status::pair::Program;

use crate::holder::{process_of, rows};

/// Longest path of a file that is shown, in characters.
const FILE_MAX: usize = 200;

/// What tells one program from another: its process, which lives once. Those the system does not
/// tell of are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Its number, and when it began.
    Process(u32, u64),
    Unknown,
}

/// A program that connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) identity: Identity,
    /// Whether it runs as another user than this process.
    pub(crate) is_foreign: bool,
    pub(crate) file: Option<String>,
}

const UNKNOWN: Peer = Peer {
    identity: Identity::Unknown,
    is_foreign: false,
    file: None,
};

/// Who connected from this address to our port. Looks through `/proc`, which takes
/// milliseconds; knows nothing on other systems.
pub(crate) fn peer(from: SocketAddr, port: u16) -> Peer {
    let found = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| {
            let text = std::fs::read_to_string(table).ok()?;
            connection(&text, from.port(), port)
        });
    let Some((user, inode)) = found else {
        return UNKNOWN;
    };
    if !is_me(user) {
        let is_foreign = true;
        return Peer {
            is_foreign,
            ..UNKNOWN
        };
    }
    let Some((process, _)) = process_of(inode) else {
        return UNKNOWN;
    };
    let file = std::fs::read_link(format!("/proc/{process}/exe"));
    Peer {
        identity: began(process).map_or(Identity::Unknown, |at| Identity::Process(process, at)),
        is_foreign: false,
        file: file
            .ok()
            .map(|path| shown(&path.to_string_lossy(), FILE_MAX)),
    }
}

impl Peer {
    /// What the owner is shown of it.
    pub(crate) fn program(&self, name: &str, origin: Option<&str>) -> Program {
        Program {
            name: shown(name, proto::status::v1::NAME_MAX),
            file: self.file.clone(),
            process: match self.identity {
                Identity::Process(process, _) => Some(process),
                Identity::Unknown => None,
            },
            origin: origin.map(|origin| shown(origin, FILE_MAX)),
        }
    }
}

/// The user and socket of the client's end: both ends are on the loopback address.
fn connection(table: &str, from: u16, to: u16) -> Option<(u32, u64)> {
    const OPEN: &str = "01";
    const LOOPBACK: &str = "0100007F";
    let is_it = |(address, at): (&str, u16), port| at == port && address.ends_with(LOOPBACK);
    let mut rows = rows(table);
    let row = rows.find(|row| row.state == OPEN && is_it(row.local, from) && is_it(row.remote, to));
    row.map(|row| (row.user, row.inode))
}

/// When a process began, in ticks since the machine did: its number may be another's by then.
fn began(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before it may hold anything but ends with the last bracket.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(unix)]
fn is_me(user: u32) -> bool {
    rustix::process::geteuid().as_raw() == user
}

#[cfg(not(unix))]
fn is_me(_: u32) -> bool {
    true
}

/// Without what would make a line read as another.
fn shown(text: &str, most: usize) -> String {
    let is_plain = |sign: &char| {
        let hides = matches!(*sign, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}');
        !sign.is_control() && !hides
    };
    text.chars().filter(is_plain).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1771 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 11 1 0 100 0 0 10 0
   1: 0100007F:1771 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 12 1 0 20 4 30 10 -1
   2: 0200000A:9C40 0300000A:1771 01 00000000:00000000 00:00000000 00000000    33        0 13 1 0 20 4 30 10 -1
   3: 0100007F:9C40 0100007F:1771 06 00000000:00000000 00:00000000 00000000    33        0 14 1 0 20 4 30 10 -1
   4: 0100007F:9C40 0100007F:1771 01 00000000:00000000 00:00000000 00000000    42        0 15 1 0 20 4 30 10 -1
";

    #[test]
    fn the_clients_end_on_this_machine_is_found_and_no_other() {
        assert_eq!(connection(TABLE, 40000, 6001), Some((42, 15)));
        assert_eq!(connection(TABLE, 40001, 6001), None);
        for cut in 0..TABLE.len() {
            let _ = connection(&TABLE[cut..], 40000, 6001);
        }
    }

    #[test]
    fn a_name_cannot_turn_its_line_around() {
        assert_eq!(shown("a\u{202e}b\n\u{200b}c", 64), "abc");
        assert_eq!(shown("żółw", 2), "żó");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_very_process_is_found_as_a_client() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let found = peer(client.local_addr().unwrap(), port);
        let Identity::Process(process, began) = found.identity else {
            panic!("{found:?}")
        };
        assert_eq!((process, found.is_foreign), (std::process::id(), false));
        assert!(began > 0);
        let own = std::env::current_exe().unwrap();
        assert_eq!(found.file.unwrap(), shown(&own.to_string_lossy(), FILE_MAX));
    }
}
