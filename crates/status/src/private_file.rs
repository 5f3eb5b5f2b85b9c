//! Small files that only their owner may read: the token, the port, the owner's preferences.
//!
//! They are created with mode 0600, replaced atomically, and not read if another user could have
//! written them.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::Path,
};

/// Maximum size of a private file, in bytes.
const LARGEST: u64 = 64 * 1024;

/// Creates the folder with mode 0700.
///
/// # Errors
/// If it cannot be created, or belongs to another user.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    owner::narrow_folder(&mut builder);
    builder.create(folder)?;
    owner::check_folder(folder)
}

/// Replaces `path` with `bytes`, mode 0600, atomically.
///
/// # Errors
/// The file system's error; the old file is then unchanged.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no file name"));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(hidden);

    let written = create(&new).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let replaced = written.and_then(|()| fs::rename(&new, path));
    if replaced.is_err() {
        let _ = fs::remove_file(&new);
    }
    replaced
}

/// Reads a private file; `None` if there is none.
///
/// # Errors
/// If it is a link, belongs to another user, gives others access, or is too large.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut options = OpenOptions::new();
    options.read(true);
    owner::refuse_links(&mut options);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    owner::check_file(&file)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the file is too large",
        ));
    }
    Ok(Some(bytes))
}

fn create(path: &Path) -> io::Result<File> {
    // Left by a process with the same id that died before the rename.
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    owner::refuse_links(&mut options);
    owner::narrow_file(&mut options);
    options.open(path)
}

#[cfg(unix)]
mod owner {
    use std::{
        fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions},
        io,
        os::unix::fs::{
            DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
        },
        path::Path,
    };

    use rustix::{fs::OFlags, process::geteuid};

    pub(super) fn narrow_folder(builder: &mut DirBuilder) {
        builder.mode(0o700);
    }

    pub(super) fn narrow_file(options: &mut OpenOptions) {
        options.mode(0o600);
    }

    pub(super) fn refuse_links(options: &mut OpenOptions) {
        // NONBLOCK: opening a FIFO in the file's place must not block.
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    }

    pub(super) fn check_folder(folder: &Path) -> io::Result<()> {
        let found = fs::metadata(folder)?;
        check_owner(&found)?;
        if found.mode() & 0o077 != 0 {
            fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        }
        Ok(())
    }

    pub(super) fn check_file(file: &File) -> io::Result<()> {
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        check_owner(&found)?;
        if found.mode() & 0o077 != 0 {
            let mode = found.mode() & 0o777;
            return Err(denied(format!(
                "mode {mode:03o} gives other users access; it must be 600"
            )));
        }
        Ok(())
    }

    fn check_owner(found: &Metadata) -> io::Result<()> {
        let me = geteuid().as_raw();
        if found.uid() != me {
            return Err(denied(format!(
                "it belongs to user {}, not to user {me}",
                found.uid()
            )));
        }
        Ok(())
    }

    fn denied(message: String) -> io::Error {
        io::Error::new(io::ErrorKind::PermissionDenied, message)
    }
}

/// On other systems the user's profile folder is private already.
#[cfg(not(unix))]
mod owner {
    use std::{
        fs::{DirBuilder, File, OpenOptions},
        io,
        path::Path,
    };

    pub(super) fn narrow_folder(_: &mut DirBuilder) {}
    pub(super) fn narrow_file(_: &mut OpenOptions) {}
    pub(super) fn refuse_links(_: &mut OpenOptions) {}
    pub(super) fn check_folder(_: &Path) -> io::Result<()> {
        Ok(())
    }
    pub(super) fn check_file(_: &File) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_private_file_is_read_back_and_only_its_owner_sees_it() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("a/hearth");
        make_folder(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);

        let path = folder.join("x");
        assert_eq!(read(&path).unwrap(), None);
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(
            fs::read_dir(&folder).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn a_folder_others_could_look_into_is_closed() {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
        make_folder(home.path()).unwrap();
        assert_eq!(fs::metadata(home.path()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_link_an_open_file_a_pipe_and_a_huge_file_are_not_read() {
        let home = tempfile::tempdir().unwrap();
        let path = |name| home.path().join(name);
        write(&path("good"), b"x").unwrap();
        symlink(path("good"), path("link")).unwrap();
        assert!(read(&path("link")).is_err());

        write(&path("open"), b"x").unwrap();
        fs::set_permissions(path("open"), fs::Permissions::from_mode(0o640)).unwrap();
        let error = read(&path("open")).unwrap_err();
        assert!(error.to_string().contains("640"), "{error}");

        assert!(read(home.path()).is_err(), "a folder");
        write(&path("huge"), &vec![0; 65 * 1024]).unwrap();
        assert!(read(&path("huge")).is_err());
    }

    #[test]
    fn writing_replaces_a_planted_link_instead_of_following_it() {
        let home = tempfile::tempdir().unwrap();
        let (target, path) = (home.path().join("target"), home.path().join("token"));
        fs::write(&target, "untouched").unwrap();
        symlink(&target, &path).unwrap();
        write(&path, b"secret").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
        assert_eq!(read(&path).unwrap().as_deref(), Some(&b"secret"[..]));
    }
}
