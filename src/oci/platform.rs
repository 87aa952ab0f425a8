//! Platforms as Docker writes them (`linux/arm/v7`), and the choice of an image for this machine from an index.
//!
//! The order of preference is containerd's: an arm machine runs its own variant and every older one; a 64-bit machine
//! also runs the 32-bit images of its family.

use std::fmt;

use miniserde::{Deserialize, Serialize};

use super::manifest::Descriptor;
use crate::error::{Error, Kind, Result};

/// An operating system, architecture and variant (OCI image spec, image-index.md, "platform").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

impl Platform {
    /// `linux` on the given architecture.
    pub fn linux(architecture: &str, variant: Option<&str>) -> Platform {
        Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.map(str::to_string),
        }
    }

    /// Parses `os/arch[/variant]` or `arch`.
    pub fn parse(text: &str) -> Result<Platform> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => ("", "", None),
        };
        if os.is_empty() || architecture.is_empty() || variant == Some("") {
            let message = format!("platform {text:?} is not of the form os/arch[/variant]");
            return Err(Error::new(Kind::Invalid, message));
        }
        Ok(Platform { os: os.into(), ..Platform::linux(architecture, variant) })
    }

    /// The platform of a kernel that names its machine `machine` (uname(2)), for a binary of ours built for `arch`
    /// (`std::env::consts::ARCH`): a 32-bit engine on a 64-bit kernel runs 32-bit images.
    pub fn of_machine(machine: &str, arch: &str) -> Platform {
        match arch {
            "x86_64" => Platform::linux("amd64", None),
            "x86" => Platform::linux("386", None),
            "aarch64" => Platform::linux("arm64", None),
            "riscv64" => Platform::linux("riscv64", None),
            "arm" if machine.starts_with("armv5") => Platform::linux("arm", Some("v5")),
            "arm" if machine.starts_with("armv6") => Platform::linux("arm", Some("v6")),
            "arm" => Platform::linux("arm", Some("v7")),
            other => Platform::linux(other, None),
        }
    }

    /// The platforms that this one runs, the best first.
    pub fn runs(&self) -> Vec<Platform> {
        let mut list = vec![self.clone()];
        let mut add_arm_up_to = |version: u32| {
            let older = (5..=version).rev().map(|v| Platform::linux("arm", Some(&format!("v{v}"))));
            list.extend(older);
        };
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm", Some("v7") | None) => add_arm_up_to(7),
            ("arm", Some("v6")) => add_arm_up_to(6),
            ("arm", Some("v5")) => add_arm_up_to(5),
            ("arm64", _) => add_arm_up_to(7),
            ("amd64", _) => list.push(Platform::linux("386", None)),
            _ => {}
        }
        list
    }

    /// Whether the two are the same, with the variant that goes without saying.
    pub fn accepts(&self, offered: &Platform) -> bool {
        let default_variant = |p: &Platform| match (p.architecture.as_str(), p.variant.as_deref()) {
            ("arm64", None) => "v8".to_string(),
            ("arm", None) => "v7".to_string(),
            (_, variant) => variant.unwrap_or_default().to_string(),
        };
        self.os == offered.os
            && self.architecture == offered.architecture
            && default_variant(self) == default_variant(offered)
    }

    /// The entry of an index that suits this platform best; `what` names the index in the error, which lists what it has.
    pub fn choose<'a>(&self, entries: &'a [Descriptor], what: &str) -> Result<&'a Descriptor> {
        let find = |wanted: &Platform| {
            entries.iter().find(|e| e.platform.as_ref().is_some_and(|p| wanted.accepts(p)))
        };
        self.runs().iter().find_map(find).ok_or_else(|| {
            const SHOWN: usize = 12;
            let offered = entries.iter().filter_map(|e| e.platform.as_ref());
            let names: Vec<String> = offered.take(SHOWN).map(Platform::to_string).collect();
            let message = format!("{what} has no image for {self}; it has {}", names.join(", "));
            Error::new(Kind::NotFound, message)
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Vec<Descriptor> {
        let entry = |text: &&str| Descriptor {
            digest: text.to_string(),
            platform: Some(Platform::parse(text).unwrap()),
            ..Default::default()
        };
        platforms.iter().map(entry).collect()
    }

    #[test]
    fn chooses_the_best_that_runs() {
        let arm = ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8", "linux/amd64"];
        for (host, offered, chosen) in [
            ("linux/arm/v7", &arm[..], "linux/arm/v7"),
            ("linux/arm/v6", &arm, "linux/arm/v6"),
            ("linux/arm/v7", &arm[..1], "linux/arm/v5"),
            ("linux/arm64", &arm, "linux/arm64/v8"),
            ("linux/arm64", &arm[..2], "linux/arm/v6"),
            ("linux/amd64", &["linux/386", "linux/amd64"], "linux/amd64"),
            ("linux/arm/v7", &["linux/arm"], "linux/arm"),
        ] {
            let entries = index(offered);
            let entry = Platform::parse(host).unwrap().choose(&entries, "x").unwrap();
            assert_eq!(entry.digest, chosen, "on {host}");
        }
    }

    #[test]
    fn says_what_there_is_when_nothing_runs() {
        let entries = index(&["linux/arm/v7", "windows/amd64"]);
        let error = Platform::linux("arm", Some("v6")).choose(&entries, "index of x").unwrap_err();
        let expected =
            "index of x has no image for linux/arm/v6; it has linux/arm/v7, windows/amd64";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn knows_the_machine() {
        for (machine, arch, platform) in [
            ("aarch64", "arm", "linux/arm/v7"),
            ("armv6l", "arm", "linux/arm/v6"),
            ("armv5tejl", "arm", "linux/arm/v5"),
            ("x86_64", "x86", "linux/386"),
        ] {
            assert_eq!(Platform::of_machine(machine, arch).to_string(), platform);
        }
    }
}
