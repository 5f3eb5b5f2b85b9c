//! A disk whose power can be cut: a file system in a file. A copy of the file taken during writes
//! contains only what was synced.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Size of the file in bytes; it is sparse.
const SIZE: u64 = 256 << 20;

/// A mounted file system, unmounted when dropped.
#[derive(Debug)]
pub struct Disk {
    /// The folder of the file, in memory if possible, so that no real disk slows the test.
    folder: tempfile::TempDir,
    image: PathBuf,
    at: PathBuf,
    cuts: u32,
}

impl Disk {
    /// Creates a file system and mounts it at this folder. The kernel writes back by itself only
    /// every 60 s.
    ///
    /// # Errors
    /// If mounting is not permitted (it needs root and loop devices) or the programs are missing.
    pub fn mount(at: &Path) -> io::Result<Self> {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() {
            tempfile::tempdir_in(memory)?
        } else {
            tempfile::tempdir()?
        };
        let disk = Self {
            image: folder.path().join("disk-0"),
            folder,
            at: at.to_owned(),
            cuts: 0,
        };
        fs::File::create_new(&disk.image)?.set_len(SIZE)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F"])
            .arg(&disk.image))?;
        disk.attach()?;
        Ok(disk)
    }

    /// Copies the file system as it would be after a power cut now. Writers must be stopped
    /// meanwhile; unsynced data is lost.
    ///
    /// # Errors
    /// If the copy fails.
    pub fn freeze(&mut self) -> io::Result<()> {
        self.cuts += 1;
        let copy = self.folder.path().join(format!("disk-{}", self.cuts));
        run(Command::new("cp")
            .arg("--sparse=always")
            .arg(&self.image)
            .arg(&copy))?;
        self.image = copy;
        Ok(())
    }

    /// Replaces the disk by the copy of [`Disk::freeze`].
    ///
    /// # Errors
    /// If a file on it is still open, or the copy cannot be mounted.
    pub fn swap(&mut self) -> io::Result<()> {
        run(Command::new("umount").arg(&self.at))?;
        let before = format!("disk-{}", self.cuts - 1);
        fs::remove_file(self.folder.path().join(before))?;
        self.attach()
    }

    fn attach(&self) -> io::Result<()> {
        let options = ["-o", "loop,commit=60"];
        run(Command::new("mount")
            .args(options)
            .arg(&self.image)
            .arg(&self.at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazy: a process that is about to end may still use it.
        drop(run(Command::new("umount").arg("--lazy").arg(&self.at)));
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    let done = command.output()?;
    if done.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&done.stderr);
    let program = command.get_program().to_string_lossy();
    Err(io::Error::other(format!("{program}: {}", why.trim())))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_was_synced_survives_a_cut_and_what_was_not_does_not() {
        let at = tempfile::tempdir().unwrap();
        let mut disk = match Disk::mount(at.path()) {
            Ok(disk) => disk,
            Err(why) => {
                crate::not_tried(&format!("no disk can be mounted here: {why}"));
                return;
            }
        };
        let mut kept = fs::File::create(at.path().join("kept")).unwrap();
        kept.write_all(b"synced").unwrap();
        kept.sync_all().unwrap();
        fs::File::open(at.path()).unwrap().sync_all().unwrap();
        let mut gone = fs::File::create(at.path().join("gone")).unwrap();
        gone.write_all(b"only written").unwrap();
        kept.write_all(b", then written").unwrap();
        disk.freeze().unwrap();
        drop((kept, gone));
        disk.swap().unwrap();
        let kept = fs::read(at.path().join("kept")).unwrap();
        assert_eq!(kept, b"synced");
        assert!(!at.path().join("gone").exists());
    }
}
