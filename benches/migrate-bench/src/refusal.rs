//! A refusal as an operator reads it: every reason on a line of its own, and each remedy once.

use serde::{Deserialize, Serialize};

/// A guest that was not started, because no host gives the processor that it was to have.
#[derive(Debug)]
pub(crate) struct NotStarted(pub(crate) String);

impl std::fmt::Display for NotStarted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the guest is not started: {}", self.0)
    }
}

impl std::error::Error for NotStarted {}

/// Why a guest can't live somewhere, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reason {
    pub(crate) what: String,
    /// Empty where there is none.
    pub(crate) remedy: String,
}

impl Reason {
    /// Whether another start of the guest would help.
    fn asks_for_common(&self) -> bool {
        self.remedy.contains("mode `common`")
    }
}

/// The reasons, indented, those with the same remedy together; the remedy after the last of them.
/// Empty for none.
pub(crate) fn lines(reasons: &[Reason]) -> String {
    let mut text = String::new();
    let mut told: Vec<&str> = Vec::new();
    for Reason { remedy, .. } in reasons {
        if told.contains(&remedy.as_str()) {
            continue;
        }
        told.push(remedy);
        let alike: Vec<&Reason> = reasons
            .iter()
            .filter(|reason| reason.remedy == *remedy)
            .collect();
        for reason in &alike {
            text += &format!("  {}", reason.what);
            // With one reason there is room for the remedy beside it.
            text += if alike.len() == 1 { "" } else { "\n" };
        }
        text += &match (remedy.as_str(), alike.len()) {
            ("", 1) => "\n".into(),
            ("", _) => String::new(),
            (remedy, 1) => format!(" -> {remedy}\n"),
            (remedy, count) => format!("  -> for all {count}: {remedy}\n"),
        };
    }
    text
}

/// What to type to follow the remedy, where it is to start the guest in mode `common`;
/// `target_file` is what the target was told to be.
pub(crate) fn how_to(reasons: &[Reason], target_file: Option<&str>) -> String {
    if !reasons.iter().any(Reason::asks_for_common) {
        return String::new();
    }
    match target_file {
        Some(file) => format!("  try: --compat common:{file}\n"),
        None => "  try: --compat common:FILE, with FILE of the target's \
                 `migrate-bench compat show --host --format json`\n"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(what: &str, remedy: &str) -> Reason {
        Reason {
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    #[test]
    fn a_remedy_is_said_once() {
        let reasons = [
            reason("avx: the host lacks it", "power off"),
            reason("not enough memory", "free some"),
            reason("fma: the host lacks it", "power off"),
            reason("no luck", ""),
        ];
        assert_eq!(
            lines(&reasons),
            "  avx: the host lacks it\n  fma: the host lacks it\n  -> for all 2: power off\n  \
             not enough memory -> free some\n  no luck\n"
        );
        assert_eq!(lines(&[]), "");
    }

    #[test]
    fn only_who_can_start_it_otherwise_is_told_how() {
        assert_eq!(how_to(&[reason("small", "free some")], Some("a")), "");
        let common = [reason("avx", "start it in mode `common` of both hosts")];
        assert!(how_to(&common, Some("b.json")).contains("--compat common:b.json"));
        assert!(how_to(&common, None).contains("compat show --host"));
    }
}
