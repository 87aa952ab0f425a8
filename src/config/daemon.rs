//! `daemon.json`: what an installation sets once, under dockerd's keys.
//!
//! Only what this engine knows is read. Other keys are passed over, for a file that was written for dockerd has many;
//! with `--debug` their names are logged.

use std::path::{Path, PathBuf};

use miniserde::json::{Number, Object, Value};

use super::document;
use crate::error::{Error, Kind, Result};

/// Where the file is looked for if none is named.
pub const DEFAULT_CONFIG_FILE: &str = "/etc/vaquita/daemon.json";
/// The most downloads at once, and the most attempts at one, that a file may ask for.
const MAX_COUNT: u64 = 1000;

/// The settings of an installation; what the file does not set is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonConfig {
    /// `registry-mirrors`: URLs of registries to ask for Docker Hub's images before Docker Hub itself.
    pub registry_mirrors: Vec<String>,
    /// `insecure-registries`: `host[:port]`, or a range of addresses such as `10.0.0.0/8`.
    pub insecure_registries: Vec<String>,
    /// `data-root`: where images and containers are kept.
    pub data_root: Option<PathBuf>,
    /// `exec-root`: where locks and the state of this boot are kept.
    pub exec_root: Option<PathBuf>,
    /// `max-concurrent-downloads`: layers of one pull that are fetched at once; at least 1.
    pub max_concurrent_downloads: Option<u32>,
    /// `max-download-attempts`: how often a download may fail without any bytes between; at least 1.
    pub max_download_attempts: Option<u32>,
    /// `proxies`: for the engine's own connections.
    pub proxies: Proxies,
    /// `debug`: say more about what is done.
    pub debug: bool,
    /// `deltas`, a key of this engine alone: whether a pull looks for deltas; it does if nothing is said.
    pub deltas: Option<bool>,
}

/// Proxies and who is reached without them, spelled as in the variables HTTP_PROXY, HTTPS_PROXY and NO_PROXY.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For plain HTTP.
    pub http: Option<String>,
    /// For HTTPS.
    pub https: Option<String>,
    /// Hosts without one, separated by commas.
    pub no_proxy: Option<String>,
}

impl DaemonConfig {
    /// The file that the user names, which must be there, or the default one, which need not.
    pub fn read(named: Option<&Path>) -> Result<DaemonConfig> {
        let path = named.unwrap_or(Path::new(DEFAULT_CONFIG_FILE));
        match (document::read(path)?, named) {
            (Some(object), _) => parse(&object, path),
            (None, None) => Ok(DaemonConfig::default()),
            (None, Some(path)) => {
                let message =
                    format!("read configuration {}: no such file or directory", path.display());
                Err(Error::new(Kind::NotFound, message))
            }
        }
    }
}

fn parse(object: &Object, path: &Path) -> Result<DaemonConfig> {
    for key in object.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        log::debug!("configuration {}: `{key}` is not used", path.display());
    }
    let list = |key| {
        let list = document::get(object, key, path, "a list of strings", as_list)?;
        Ok::<_, Error>(list.unwrap_or_default())
    };
    let text = |key| document::text(object, key, path);
    let directory = |key| text(key).map(|text| text.filter(|t| !t.is_empty()).map(PathBuf::from));
    let count = |key| document::get(object, key, path, "a number from 1 to 1000", as_count);
    let flag = |key| document::get(object, key, path, "true or false", as_bool);
    Ok(DaemonConfig {
        registry_mirrors: list("registry-mirrors")?,
        insecure_registries: list("insecure-registries")?,
        data_root: directory("data-root")?,
        exec_root: directory("exec-root")?,
        max_concurrent_downloads: count("max-concurrent-downloads")?,
        max_download_attempts: count("max-download-attempts")?,
        proxies: match document::object(object, "proxies", path)? {
            Some(proxies) => Proxies {
                http: document::text(proxies, "http-proxy", path)?,
                https: document::text(proxies, "https-proxy", path)?,
                no_proxy: document::text(proxies, "no-proxy", path)?,
            },
            None => Proxies::default(),
        },
        debug: flag("debug")?.unwrap_or(false),
        deltas: flag("deltas")?,
    })
}

/// The keys that are read.
const KEYS: &[&str] = &[
    "registry-mirrors",
    "insecure-registries",
    "data-root",
    "exec-root",
    "max-concurrent-downloads",
    "max-download-attempts",
    "proxies",
    "debug",
    "deltas",
];

fn as_list(value: &Value) -> Option<Vec<String>> {
    let Value::Array(values) = value else { return None };
    values.iter().map(|value| document::as_text(value).map(str::to_string)).collect()
}

fn as_count(value: &Value) -> Option<u32> {
    match value {
        Value::Number(Number::U64(count @ 1..=MAX_COUNT)) => Some(*count as u32),
        _ => None,
    }
}

fn as_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DaemonConfig, String> {
        let name =
            format!("vaquita-daemon-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        fs_err::write(&path, text).unwrap();
        let result = DaemonConfig::read(Some(&path)).map_err(|e| e.to_string());
        fs_err::remove_file(&path).unwrap();
        result.map_err(|message| message.replace(&path.display().to_string(), "F"))
    }

    #[test]
    fn reads_dockers_keys() {
        let text = r#"{
            "registry-mirrors": ["https://mirror.example"], "insecure-registries": ["10.0.0.0/8", "lan:5000"],
            "data-root": "/mnt/data/docker", "exec-root": "/run/d", "max-concurrent-downloads": 2,
            "max-download-attempts": 9, "debug": true, "deltas": false, "log-driver": "journald", "live-restore": null,
            "proxies": {"http-proxy": "http://p:1", "https-proxy": "http://p:2", "no-proxy": "a,.b"}
        }"#;
        let strings = |all: &[&str]| all.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let expected = DaemonConfig {
            registry_mirrors: strings(&["https://mirror.example"]),
            insecure_registries: strings(&["10.0.0.0/8", "lan:5000"]),
            data_root: Some("/mnt/data/docker".into()),
            exec_root: Some("/run/d".into()),
            max_concurrent_downloads: Some(2),
            max_download_attempts: Some(9),
            proxies: Proxies {
                http: Some("http://p:1".into()),
                https: Some("http://p:2".into()),
                no_proxy: Some("a,.b".into()),
            },
            debug: true,
            deltas: Some(false),
        };
        assert_eq!(read(text), Ok(expected));
        for empty in ["", " \n", "{}", r#"{"data-root": "", "proxies": {}}"#] {
            assert_eq!(read(empty), Ok(DaemonConfig::default()), "{empty}");
        }
    }

    #[test]
    fn names_what_is_wrong() {
        for (text, why) in [
            ("{", "parse configuration F: not valid JSON"),
            ("[]", "parse configuration F: not valid JSON"),
            (r#"{"debug":1}"#, "configuration F: `debug` is not true or false"),
            (r#"{"data-root":[]}"#, "configuration F: `data-root` is not a string"),
            (r#"{"proxies":""}"#, "configuration F: `proxies` is not an object"),
            (r#"{"proxies":{"no-proxy":1}}"#, "configuration F: `no-proxy` is not a string"),
            (
                r#"{"registry-mirrors":"x"}"#,
                "configuration F: `registry-mirrors` is not a list of strings",
            ),
            (
                r#"{"insecure-registries":[1]}"#,
                "configuration F: `insecure-registries` is not a list of strings",
            ),
            (
                r#"{"max-concurrent-downloads":0}"#,
                "configuration F: `max-concurrent-downloads` is not a number from 1 to 1000",
            ),
            (
                r#"{"max-download-attempts":-1}"#,
                "configuration F: `max-download-attempts` is not a number from 1 to 1000",
            ),
        ] {
            assert_eq!(read(text), Err(why.to_string()), "{text}");
        }
        let error = DaemonConfig::read(Some(Path::new("/nowhere/daemon.json"))).unwrap_err();
        let expected = "read configuration /nowhere/daemon.json: no such file or directory";
        assert_eq!((error.to_string().as_str(), error.kind()), (expected, Kind::NotFound));
    }
}
