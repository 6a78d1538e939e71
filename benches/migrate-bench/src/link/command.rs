//! Programs in a network namespace or outside of any. It makes no namespace.

use std::path::Path;
use std::process::Command;

/// A network namespace, named by a process that lives in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Namespace {
    process: u32,
}

impl Namespace {
    /// That of `process`, which must live as long as anything is started there.
    pub(crate) const fn of_process(process: u32) -> Self {
        Self { process }
    }

    /// Where the kernel shows it.
    pub(crate) fn path(self) -> String {
        format!("/proc/{}/ns/net", self.process)
    }
}

/// Where a program is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Where this process runs.
    Here,
    /// In a network namespace.
    In(Namespace),
}

impl Place {
    /// A command that becomes `program` there, as the process that is started for it.
    pub(crate) fn command(self, program: &Path) -> Command {
        match self {
            Self::Here => Command::new(program),
            Self::In(namespace) => {
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net={}", namespace.path()))
                    .arg("--")
                    .arg(program);
                command
            }
        }
    }
}
