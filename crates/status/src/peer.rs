//! Identifies the program at the other end of a connection, as far as the system tells.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use proto::status::pair::Program;

use crate::{
    printable::is_printable,
    sockets::{is_me, look_up, process_of, rows},
};

/// Maximum length of a file path that is shown, in characters.
const FILE_MAX: usize = 200;

/// Identifies a program by its process. All processes that the system does not identify count as
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The process id and start time.
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

/// Finds the program that connected from this address to our port of 127.0.0.1; `None` if it is not
/// found. Linux lists every connection that is open at both ends, before it is accepted. Reads
/// `/proc`, which takes milliseconds.
pub(crate) fn peer(from: SocketAddr, port: u16) -> Option<Peer> {
    let SocketAddr::V4(from) = from else {
        return None;
    };
    match look_up(|table| connection(table, from, port)) {
        Some((user, inode)) if is_me(user) => Some(own(inode)),
        Some(_) => Some(Peer {
            is_foreign: true,
            ..UNKNOWN
        }),
        None if cfg!(target_os = "linux") => None,
        None => Some(UNKNOWN),
    }
}

/// The program of this user that has this socket open.
fn own(inode: u64) -> Peer {
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
    /// The description for the owner.
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

/// The user and inode of the client's socket. The whole address is compared: all of 127.0.0.0/8 is
/// this machine, so another program may use the same port with another address.
pub(crate) fn connection(table: &str, from: SocketAddrV4, to: u16) -> Option<(u32, u64)> {
    const OPEN: &str = "01";
    let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, to);
    let mut rows = rows(table);
    let row = rows.find(|row| row.state == OPEN && row.local.is(from) && row.remote.is(to));
    row.map(|row| (row.user, row.inode))
}

/// The start time of a process, in clock ticks since boot; distinguishes a reused process id.
fn began(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in front may contain any character, but ends with the last bracket.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn shown(text: &str, most: usize) -> String {
    text.chars()
        .filter(|sign| is_printable(*sign))
        .take(most)
        .collect()
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
   4: 0200007F:9C40 0100007F:1771 01 00000000:00000000 00:00000000 00000000    33        0 16 1 0 20 4 30 10 -1
   5: 0100007F:9C40 0100007F:1771 01 00000000:00000000 00:00000000 00000000    42        0 15 1 0 20 4 30 10 -1
   6: 0000000000000000FFFF00000300007F:9C40 0000000000000000FFFF00000100007F:1771 01 00000000:00000000 00:00000000 00000000    34        0 17 1 0 20 4 30 10 -1
   7: B80D0120000000000000FFFF0400007F:9C40 0000000000000000FFFF00000100007F:1771 01 00000000:00000000 00:00000000 00000000    35        0 18 1 0 20 4 30 10 -1
";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_clients_end_on_this_machine_is_found_and_no_other() {
        let found = |from: &str| connection(TABLE, from.parse().unwrap(), 6001);
        for (from, who) in [
            ("127.0.0.1:40000", Some((42, 15))),
            ("127.0.0.2:40000", Some((33, 16))),
            ("127.0.0.3:40000", Some((34, 17))),
            ("127.0.0.4:40000", None),
            ("127.0.0.1:40001", None),
            ("10.0.0.2:40000", None),
        ] {
            assert_eq!(found(from), who, "{from}");
        }
        for cut in 0..TABLE.len() {
            let _ = connection(&TABLE[cut..], "127.0.0.1:40000".parse().unwrap(), 6001);
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
        let found = peer(client.local_addr().unwrap(), port).unwrap();
        let Identity::Process(process, began) = found.identity else {
            panic!("{found:?}")
        };
        assert_eq!((process, found.is_foreign), (std::process::id(), false));
        assert!(began > 0);
        let own = std::env::current_exe().unwrap();
        assert_eq!(found.file.unwrap(), shown(&own.to_string_lossy(), FILE_MAX));
        assert_eq!(peer("127.0.0.9:1".parse().unwrap(), port), None);
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn of_two_clients_with_one_port_on_two_addresses_each_is_itself() {
        use std::os::{fd::AsRawFd as _, linux::fs::MetadataExt as _};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let connect = async |ip: &str, port: u16| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket
                .bind((ip.parse::<Ipv4Addr>().unwrap(), port).into())
                .unwrap();
            socket.connect(to).await.unwrap()
        };
        let one = tokio::net::TcpStream::connect(to).await.unwrap();
        let from = one.local_addr().unwrap().port();
        let two = connect("127.0.0.2", from).await;
        for client in [&one, &two] {
            let path = format!("/proc/self/fd/{}", client.as_raw_fd());
            let inode = std::fs::metadata(path).unwrap().st_ino();
            let SocketAddr::V4(from) = client.local_addr().unwrap() else {
                panic!("it is IPv4")
            };
            let found = look_up(|table| connection(table, from, to.port())).unwrap();
            assert_eq!(found.1, inode, "{from}");
            let Identity::Process(process, _) = peer(from.into(), to.port()).unwrap().identity
            else {
                panic!("{from} is not found")
            };
            assert_eq!(process, std::process::id());
        }
    }
}
