//! What must be installed for an emulated host: emulator, shell, archiver, kernel and modules.
//! Installs nothing: `prepare.sh` does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Modules in the order in which they are loaded.
const MODULES: &[&str] = &[
    "irqbypass",
    "kvm",
    "kvm-amd",
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
];

/// Something that is not there, and how to get it.
#[derive(Debug, thiserror::Error)]
#[error("{what} is missing: run testbeds/foreign-kvm/prepare.sh as root on Debian or Ubuntu")]
pub struct Missing {
    what: String,
}

/// Everything that is needed, found.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The kernel's image.
    pub(crate) kernel: PathBuf,
    /// Kernel modules in the order in which they are loaded.
    pub(crate) modules: Vec<PathBuf>,
    /// A shell and its tools in one static program.
    pub(crate) busybox: PathBuf,
}

impl Tools {
    /// Looks for everything. The kernel is where `prepare.sh` puts it: in `foreign-kvm` of
    /// cargo's target folder.
    ///
    /// # Errors
    /// [`Missing`]: the first thing that is not there.
    pub fn find() -> Result<Self, Missing> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err(missing("Linux on x86-64"));
        }
        for tool in ["qemu-system-x86_64", "cpio", "gzip", "ldd"] {
            let there = Command::new(tool).arg("--version").output();
            there.map_err(|_| missing(tool))?;
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
        let busybox = busybox.into_iter().find(|path| is_complete(path));
        let folder = target_folder().join("foreign-kvm");
        let kernel = newest(&folder.join("boot"), "vmlinuz-");
        let kernel = kernel.ok_or_else(|| missing("a kernel for the emulated hosts"))?;
        let modules = MODULES.iter().filter_map(|name| module(&folder, name));
        Ok(Self {
            kernel,
            modules: modules.collect(),
            busybox: busybox.ok_or_else(|| missing("busybox-static"))?,
        })
    }

    /// The same for a test: says why it is skipped, unless the environment forbids skipping.
    ///
    /// # Panics
    /// With `LIMOSA_FOREIGN_KVM=require` in the environment, where something is missing.
    #[must_use]
    pub fn find_or_skip() -> Option<Self> {
        match Self::find() {
            Ok(tools) => Some(tools),
            Err(missing) => {
                let required = env::var("LIMOSA_FOREIGN_KVM").is_ok_and(|value| value == "require");
                // PANIC: asked for by whoever runs the tests.
                assert!(!required, "{missing}");
                eprintln!("SKIPPED: {missing}");
                None
            }
        }
    }
}

/// Whether this busybox has what hosts use beyond a shell.
fn is_complete(busybox: &Path) -> bool {
    let listed = Command::new(busybox).arg("--list").output();
    listed.is_ok_and(|listed| {
        let names = String::from_utf8_lossy(&listed.stdout).into_owned();
        let mut wanted = ["httpd", "wget", "insmod", "ip", "stty", "awk"].into_iter();
        wanted.all(|wanted| names.lines().any(|name| name == wanted))
    })
}

fn missing(what: &str) -> Missing {
    let what = what.into();
    Missing { what }
}

/// Cargo's target folder: of the environment, or the workspace's.
#[must_use]
pub fn target_folder() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    env::var_os("CARGO_TARGET_DIR").map_or(workspace, PathBuf::from)
}

fn newest(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let paths = entries.map(|entry| entry.path());
    let named = paths.filter(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| name.starts_with(prefix))
    });
    named.max()
}

/// A module of the kernel in `folder`, wherever it lies; `None` where it is built in.
fn module(folder: &Path, name: &str) -> Option<PathBuf> {
    let modules = ["lib/modules", "usr/lib/modules"].map(|place| folder.join(place));
    let mut left: Vec<PathBuf> = modules.into_iter().collect();
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).ok().into_iter().flatten().flatten() {
            let path = entry.path();
            let file = entry.file_name();
            if path.is_dir() {
                left.push(path);
            } else if file.to_string_lossy() == format!("{name}.ko") {
                return Some(path);
            }
        }
    }
    None
}
