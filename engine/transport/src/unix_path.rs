//! The socket file of a Unix listener: made safely beside a dead listener's, removed when its own
//! listener goes. Nothing is accepted here.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

/// How long another listener's start in the same folder is waited for.
const FOLDER_LOCK_MAX: Duration = Duration::from_secs(1);

/// A socket file that is removed on drop, when it is still the one that was made.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Binds `socket` to `path` and listens. Only the owner may connect.
    ///
    /// A socket file there whose listener is dead is replaced. The folder is locked meanwhile, so
    /// that of two listeners which start at once neither takes the other for dead: one that is
    /// bound but does not listen yet can't be told from a dead one.
    pub(crate) fn listen(socket: &Socket, path: &Path, backlog: i32) -> io::Result<Self> {
        let folder = lock_folder(path)?;
        let address = SockAddr::unix(path)?;
        match socket.bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if folder.is_none() || !is_dead(path, &address)? {
                    return Err(error);
                }
                fs::remove_file(path)?;
                socket.bind(&address)?;
            }
            result => result?,
        }
        let made = fs::symlink_metadata(path)?;
        let file = Self {
            path: path.to_owned(),
            device: made.dev(),
            inode: made.ino(),
        };
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        socket.listen(backlog)?;
        Ok(file)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_own = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if is_own {
            // A file that can't be removed is a dead listener's, which the next one replaces.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The locked folder of `path`; none where locks are not to be had, which only costs the right to
/// replace a dead listener's file.
fn lock_folder(path: &Path) -> io::Result<Option<File>> {
    let folder = File::open(path.parent().unwrap_or(Path::new("/")))?;
    let begun = Instant::now();
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(Some(folder)),
            Err(TryLockError::WouldBlock) if begun.elapsed() < FOLDER_LOCK_MAX => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(_) => return Ok(None),
        }
    }
}

/// Is there a socket file at `path` that nobody listens on?
fn is_dead(path: &Path, address: &SockAddr) -> io::Result<bool> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Ok(false);
    }
    let caller = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A listener with a full queue would block a caller.
    caller.set_nonblocking(true)?;
    match caller.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
        _ => Ok(false),
    }
}
