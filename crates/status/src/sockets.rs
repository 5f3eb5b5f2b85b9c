//! The sockets of this machine, as Linux lists them.

use std::net::{Ipv4Addr, SocketAddrV4};

const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// Number of reads of a table. A table is not read atomically: while other sockets close, a row may
/// be skipped.
const LOOKS: usize = 3;

/// Searches the kernel's socket tables; `None` on other systems.
pub(crate) fn look_up<T>(find: impl Fn(&str) -> Option<T>) -> Option<T> {
    let look = || {
        let mut tables = TABLES.iter().map(std::fs::read_to_string);
        tables.find_map(|table| find(&table.ok()?))
    };
    (0..LOOKS).find_map(|_| look())
}

/// One socket in the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    pub(crate) local: End<'a>,
    pub(crate) remote: End<'a>,
    pub(crate) state: &'a str,
    pub(crate) user: u32,
    pub(crate) inode: u64,
}

/// An address as the kernel writes it, and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End<'a> {
    address: &'a str,
    port: u16,
}

impl<'a> End<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (address, port) = text.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some(Self { address, port })
    }

    /// Whether it is this address; IPv6 sockets have it as `::ffff:a.b.c.d`.
    pub(crate) fn is(&self, wanted: SocketAddrV4) -> bool {
        const NONE: &str = "0000000000000000";
        let word = |octets| format!("{:08X}", u32::from_ne_bytes(octets));
        let is_it = |written: &str| written == word(wanted.ip().octets());
        let mapped = || {
            let rest = self.address.strip_prefix(NONE)?;
            rest.strip_prefix(&word([0, 0, 0xff, 0xff]))
        };
        self.port == wanted.port() && (is_it(self.address) || mapped().is_some_and(is_it))
    }

    /// Whether a listener at this address is reached at 127.0.0.1 with this port.
    pub(crate) fn hears(&self, port: u16) -> bool {
        let is_any = self.address.bytes().all(|digit| digit == b'0');
        self.is(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) || (is_any && self.port == port)
    }
}

/// The sockets in the kernel's table; malformed rows are skipped.
pub(crate) fn rows(table: &str) -> impl Iterator<Item = Row<'_>> {
    table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let (user, inode) = (fields.nth(3)?, fields.nth(1)?);
        Some(Row {
            local: End::read(local)?,
            remote: End::read(remote)?,
            state,
            user: user.parse().ok()?,
            inode: inode.parse().ok()?,
        })
    })
}

/// The id and name of the process that has this socket open; `None` if this user may not see it.
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

/// Whether this process runs as that user.
#[cfg(unix)]
pub(crate) fn is_me(user: u32) -> bool {
    rustix::process::geteuid().as_raw() == user
}

#[cfg(not(unix))]
pub(crate) fn is_me(_: u32) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn an_address_is_compared_whole_in_both_of_its_spellings() {
        let loopback: SocketAddrV4 = "127.0.0.1:6001".parse().unwrap();
        for (end, is_it, hears) in [
            ("0100007F:1771", true, true),
            ("0100007F:1770", false, false),
            ("0200007F:1771", false, false),
            ("0000000000000000FFFF00000100007F:1771", true, true),
            ("0000000000000000FFFF00000200007F:1771", false, false),
            ("0000000000000000000000000100007F:1771", false, false),
            ("B80D0120000000000000FFFF0100007F:1771", false, false),
            ("00000000000000000000000001000000:1771", false, false),
            ("00000000:1771", false, true),
            ("00000000:1770", false, false),
            ("00000000000000000000000000000000:1771", false, true),
            ("0300000A:1771", false, false),
        ] {
            let read = End::read(end).unwrap();
            assert_eq!(
                (read.is(loopback), read.hears(6001)),
                (is_it, hears),
                "{end}"
            );
        }
    }
}
