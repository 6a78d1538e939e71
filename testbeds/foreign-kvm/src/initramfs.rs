//! The file system of an emulated host: a shell, kernel modules, the program under test with its
//! libraries, and a first process that takes steps from the console.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools::Tools;

/// What a host prints when it takes steps.
pub(crate) const BOOTED: &str = "LIMOSA: booted";

/// What a host prints after a step, followed by its exit status.
pub(crate) const STEP_ENDED: &str = "LIMOSA: step ended with ";

/// What every host does first: mount, load modules, take its address, serve its files to the other
/// host. Then it does what the console says, a line at a time.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /sbin /usr/bin
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
while read module; do insmod "/modules/$module"; done < /modules/order
ip link set lo up
address=$(grep -o 'limosa.address=[0-9.]*' /proc/cmdline | cut -d= -f2)
if [ -n "$address" ]; then
    ip link set eth0 up
    ip addr add "$address/24" dev eth0
fi
cd /tmp
httpd -h /tmp -p 80
dmesg -n 1
stty -echo < /dev/console
echo "LIMOSA: booted"
while read -r step; do
    sh -c "$step" < /dev/null 2>&1
    echo "LIMOSA: step ended with $?"
done
poweroff -f
"#;

/// Why there is no file system.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// A file can't be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program failed.
    #[error("{program}: {text}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said.
        text: String,
    },
}

/// A file system in the making. Dropping it removes it.
#[derive(Debug)]
pub struct Initramfs {
    folder: tempfile::TempDir,
}

impl Initramfs {
    /// One with a shell, the modules, and `program` with the libraries that it is linked to.
    ///
    /// # Errors
    /// [`InitramfsError`].
    pub fn new(tools: &Tools, program: &Path) -> Result<Self, InitramfsError> {
        let folder = tempfile::tempdir().map_err(|source| InitramfsError::File {
            path: std::env::temp_dir(),
            source,
        })?;
        let this = Self { folder };
        for folder in ["proc", "sys", "dev", "tmp", "bin", "modules"] {
            let path = this.folder.path().join(folder);
            fs::create_dir_all(&path).map_err(|source| InitramfsError::File { path, source })?;
        }
        this.copy(&tools.busybox, Path::new("bin/busybox"))?;
        let mut order = String::new();
        for module in &tools.modules {
            let name = module.file_name().unwrap_or_default();
            this.copy(module, &Path::new("modules").join(name))?;
            order += &format!("{}\n", name.to_string_lossy());
        }
        this.write("modules/order", &order)?;
        this.write("init", INIT)?;
        this.allow_to_run("init")?;
        let name = program.file_name().unwrap_or_default();
        this.copy(program, &Path::new("bin").join(name))?;
        for library in libraries(program)? {
            let inside = library.strip_prefix("/").unwrap_or(&library).to_path_buf();
            this.copy(&library, &inside)?;
        }
        Ok(this)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), InitramfsError> {
        let path = self.folder.path().join(name);
        fs::write(&path, text).map_err(|source| InitramfsError::File { path, source })
    }

    fn allow_to_run(&self, name: &str) -> Result<(), InitramfsError> {
        let path = self.folder.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(|source| InitramfsError::File { path, source })
    }

    fn copy(&self, from: &Path, inside: &Path) -> Result<(), InitramfsError> {
        let path = self.folder.path().join(inside);
        let parent = path.parent().map_or(Ok(()), fs::create_dir_all);
        let copied = parent.and_then(|()| fs::copy(from, &path).map(|_| ()));
        copied.map_err(|source| InitramfsError::File {
            path: from.into(),
            source,
        })
    }

    /// Packs everything into the archive that a kernel takes.
    ///
    /// # Errors
    /// [`InitramfsError`].
    pub fn pack(&self, archive: &Path) -> Result<(), InitramfsError> {
        let pack = "find . | cpio -o -H newc --quiet | gzip -1 > \"$ARCHIVE\"";
        let done = Command::new("sh")
            .args(["-c", pack])
            .env("ARCHIVE", archive)
            .current_dir(self.folder.path())
            .output();
        let done = done.map_err(|source| InitramfsError::File {
            path: archive.into(),
            source,
        })?;
        if done.status.success() {
            return Ok(());
        }
        Err(InitramfsError::Program {
            program: "cpio",
            text: String::from_utf8_lossy(&done.stderr).into(),
        })
    }
}

/// The shared libraries of a program, as `ldd` finds them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, InitramfsError> {
    let listed = Command::new("ldd").arg(program).output();
    let listed = listed.map_err(|source| InitramfsError::File {
        path: program.into(),
        source,
    })?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(PathBuf::from).collect())
}
