//! Processors as JSON, the schema `limosa.cpu/1`; `docs/compat-files.md` describes each field. What
//! is read is checked in full: unknown fields, wrong numbers and double answers are refused.

use limosa_compat::{
    ABOUT_BYTES_MAX, BASELINE_NAME_BYTES_MAX, CpuidEntry, CpuidTable, GuestCpu, HostCpu, MsrTable,
    Processor, TscScaling,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::content::Content;

/// The schema's name and version.
pub(crate) const SCHEMA: &str = "limosa.cpu/1";

/// A register: `0x` and hexadecimal digits, so that people can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hex<T>(T);

impl Serialize for Hex<u32> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#010x}", self.0))
    }
}

impl Serialize for Hex<u64> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#018x}", self.0))
    }
}

impl<'de, T: TryFrom<u64>> Deserialize<'de> for Hex<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").filter(|digits| {
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let fits = number.and_then(|number| T::try_from(number).ok());
        fits.map(Self).ok_or_else(|| {
            let bits = size_of::<T>() * 8;
            D::Error::custom(format!(
                "`{text}` is no register of {bits} bits; write for instance \"0x1f\""
            ))
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    leaf: Hex<u32>,
    subleaf: Hex<u32>,
    eax: Hex<u32>,
    ebx: Hex<u32>,
    ecx: Hex<u32>,
    edx: Hex<u32>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Msr {
    index: Hex<u32>,
    value: Hex<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    cpuid: Vec<Entry>,
    #[serde(default)]
    msrs: Vec<Msr>,
}

/// A [`Processor`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Tables", into = "Tables")]
pub(crate) struct ProcessorJson(pub(crate) Processor);

impl TryFrom<Tables> for ProcessorJson {
    type Error = String;

    fn try_from(tables: Tables) -> Result<Self, String> {
        if tables.cpuid.is_empty() {
            return Err("`cpuid` is empty: a processor answers at least leaf 0x0".into());
        }
        let entries = tables.cpuid.iter().map(|entry| CpuidEntry {
            leaf: entry.leaf.0,
            subleaf: entry.subleaf.0,
            eax: entry.eax.0,
            ebx: entry.ebx.0,
            ecx: entry.ecx.0,
            edx: entry.edx.0,
        });
        let msrs = tables.msrs.iter().map(|msr| (msr.index.0, msr.value.0));
        let said = |error: limosa_compat::TableError| error.to_string();
        Ok(Self(Processor {
            cpuid: CpuidTable::new(entries.collect()).map_err(said)?,
            msrs: MsrTable::new(msrs.collect()).map_err(said)?,
        }))
    }
}

impl From<ProcessorJson> for Tables {
    fn from(ProcessorJson(processor): ProcessorJson) -> Self {
        let entries = processor.cpuid.entries().iter().map(|entry| Entry {
            leaf: Hex(entry.leaf),
            subleaf: Hex(entry.subleaf),
            eax: Hex(entry.eax),
            ebx: Hex(entry.ebx),
            ecx: Hex(entry.ecx),
            edx: Hex(entry.edx),
        });
        let msrs = processor.msrs.values().iter().map(|(index, value)| Msr {
            index: Hex(*index),
            value: Hex(*value),
        });
        Self {
            cpuid: entries.collect(),
            msrs: msrs.collect(),
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scaling {
    Yes,
    No,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Host {
    #[serde(default)]
    about: String,
    tsc_khz: u32,
    tsc_scaling: Scaling,
    offer: ProcessorJson,
    accept: Option<ProcessorJson>,
}

/// A [`HostCpu`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Host", into = "Host")]
pub(crate) struct HostJson(pub(crate) HostCpu);

impl TryFrom<Host> for HostJson {
    type Error = String;

    fn try_from(host: Host) -> Result<Self, String> {
        Ok(Self(HostCpu {
            accept: host.accept.map_or_else(|| host.offer.0.clone(), |it| it.0),
            offer: host.offer.0,
            tsc_khz: host.tsc_khz,
            tsc_scaling: match host.tsc_scaling {
                Scaling::Yes => TscScaling::Yes,
                Scaling::No => TscScaling::No,
            },
            about: printable("about", host.about, ABOUT_BYTES_MAX)?,
        }))
    }
}

impl From<HostJson> for Host {
    fn from(HostJson(host): HostJson) -> Self {
        Self {
            about: host.about,
            tsc_khz: host.tsc_khz,
            tsc_scaling: match host.tsc_scaling {
                TscScaling::Yes => Scaling::Yes,
                TscScaling::No => Scaling::No,
            },
            offer: ProcessorJson(host.offer),
            accept: Some(ProcessorJson(host.accept)),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Guest {
    baseline: String,
    tsc_khz: u32,
    vcpu_count: u16,
    processor: ProcessorJson,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Baseline {
    name: String,
    processor: ProcessorJson,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<HostJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guest: Option<Guest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<Baseline>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processor: Option<ProcessorJson>,
}

/// Reads one file's text.
pub(crate) fn parse(text: &str) -> Result<Content, String> {
    let file: File = serde_json::from_str(text).map_err(|error| in_line(&error))?;
    if file.schema != SCHEMA {
        return Err(format!(
            "the schema `{}` is unknown: this version reads {SCHEMA}",
            file.schema
        ));
    }
    match (file.host, file.guest, file.baseline, file.processor) {
        (Some(host), None, None, None) => Ok(Content::Host(host.0)),
        (None, Some(guest), None, None) => Ok(Content::Guest(GuestCpu {
            processor: guest.processor.0,
            tsc_khz: guest.tsc_khz,
            vcpu_count: guest.vcpu_count,
            baseline: printable("baseline", guest.baseline, BASELINE_NAME_BYTES_MAX)?,
        })),
        (None, None, Some(baseline), None) => Ok(Content::Baseline {
            name: printable("name", baseline.name, BASELINE_NAME_BYTES_MAX)?,
            processor: baseline.processor.0,
        }),
        (None, None, None, Some(processor)) => Ok(Content::Processor(processor.0)),
        _ => Err("exactly one of `host`, `guest`, `baseline` and `processor` must be there".into()),
    }
}

/// Writes one file's text.
pub(crate) fn print(content: &Content) -> serde_json::Result<String> {
    let mut file = File {
        schema: SCHEMA.into(),
        ..File::default()
    };
    match content.clone() {
        Content::Host(host) => file.host = Some(HostJson(host)),
        Content::Guest(guest) => {
            file.guest = Some(Guest {
                baseline: guest.baseline,
                tsc_khz: guest.tsc_khz,
                vcpu_count: guest.vcpu_count,
                processor: ProcessorJson(guest.processor),
            });
        }
        Content::Baseline { name, processor } => {
            let processor = ProcessorJson(processor);
            file.baseline = Some(Baseline { name, processor });
        }
        Content::Processor(processor) => file.processor = Some(ProcessorJson(processor)),
    }
    serde_json::to_string_pretty(&file)
}

fn printable(field: &str, text: String, bytes_max: usize) -> Result<String, String> {
    let plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if plain && text.len() <= bytes_max {
        Ok(text)
    } else {
        Err(format!(
            "`{field}` must be at most {bytes_max} printable ASCII letters"
        ))
    }
}

/// The reason with its line in front, as for the text form.
fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text
        .rsplit_once(" at line ")
        .map_or(&*text, |(reason, _)| reason);
    format!("line {}: {reason}", error.line())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor() -> Processor {
        let entry = |leaf, ebx| CpuidEntry {
            leaf,
            ebx,
            ..CpuidEntry::default()
        };
        Processor {
            cpuid: CpuidTable::new(vec![entry(0, 1), entry(7, 1 << 5)]).unwrap(),
            msrs: MsrTable::new(vec![(0x10a, 1 << 63)]).unwrap(),
        }
    }

    #[test]
    fn whatever_is_written_is_read_back() {
        let mut host = HostCpu::plain(processor(), 2_000_000, TscScaling::Yes);
        host.accept.msrs = MsrTable::default();
        host.about = "Linux 6.18".into();
        for content in [
            Content::Host(host),
            Content::Guest(GuestCpu {
                processor: processor(),
                tsc_khz: 1,
                vcpu_count: 2,
                baseline: "off".into(),
            }),
            Content::Baseline {
                name: "common".into(),
                processor: processor(),
            },
            Content::Processor(processor()),
        ] {
            let text = print(&content).unwrap();
            assert_eq!(parse(&text), Ok(content), "{text}");
        }
    }

    /// Refused with these words.
    fn refuses(text: &str, words: &[&str]) {
        let error = parse(text).unwrap_err();
        for word in words {
            assert!(error.contains(word), "no `{word}`: {error}");
        }
    }

    #[test]
    fn what_is_not_of_the_schema_is_refused_with_its_line() {
        let with = |cpuid: &str| {
            format!("{{\"schema\": \"{SCHEMA}\",\n\"processor\": {{\n\"cpuid\": [{cpuid}]}}}}")
        };
        let entry = |eax: &str| {
            format!(
                r#"{{"leaf": "0x0", "subleaf": "0x0", "eax": {eax}, "ebx": "0x0", "ecx": "0x0",
                    "edx": "0x0"}}"#
            )
        };
        assert!(parse(&with(&entry("\"0x1\""))).is_ok());
        refuses(&with(&entry("1")), &["line 3", "string"]);
        refuses(&with(&entry("\"0x\"")), &["line 3", "32 bits"]);
        refuses(&with(&entry("\"+0x1\"")), &["line 3", "`+0x1`"]);
        refuses(&with(&entry("\"0x+1\"")), &["line 3", "`0x+1`"]);
        refuses(&with(&entry("\"0x100000000\"")), &["line 3", "32 bits"]);
        let twice = format!("{},{}", entry("\"0x1\""), entry("\"0x1\""));
        refuses(&with(&twice), &["line", "answered twice"]);
        refuses(&with(""), &["line 3", "`cpuid` is empty"]);
        refuses(&with(r#"{"leaf": "0x0"}"#), &["line 3", "subleaf"]);
        refuses(&with(r#"{"lief": "0x0"}"#), &["line 3", "lief"]);
        refuses("{", &["line 1"]);
        refuses(r#"{"schema": "limosa.cpu/9"}"#, &["limosa.cpu/9", SCHEMA]);
        refuses(r#"{"schema": "limosa.cpu/1"}"#, &["exactly one of"]);
        refuses(r#"{"schema": "limosa.cpu/1", "x": 1}"#, &["`x`"]);
    }
}
