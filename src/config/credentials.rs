//! The client's `config.json`: who to be at which registry.
//!
//! `auths` holds a member for each registry: `auth` is `user:password` in Base64, `identitytoken` one that a token
//! service takes instead of a password, `registrytoken` one that the registry itself takes. `credHelpers` (for one
//! registry) and `credsStore` (for all) name programs that keep secrets elsewhere. Every other key is the user's.

use std::fs::{DirBuilder, File};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use miniserde::json::{Object, Value};

use super::{document, helper};
use crate::base64;
use crate::error::{Context, Error, Kind, Result};
use crate::json;
use crate::sys::{file, lock};

/// Docker Hub's key, from the time of its first protocol.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The host of that key.
const HUB_NAME: &str = "index.docker.io";
/// What Docker Hub is called in references and on the wire.
const HUB_OTHER_NAMES: &[&str] = &["docker.io", "registry-1.docker.io"];
/// Where a machine without HOME keeps it: there is one user.
const SYSTEM_FILE: &str = "/etc/vaquita/config.json";

/// Who to be at one registry. Secrets are sent to that registry, or to the token service that it names; never logged.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// `host[:port]` as in references; `docker.io` for Docker Hub.
    pub registry: String,
    /// The user's name.
    pub user: String,
    /// The password or access token.
    pub password: String,
    /// A refresh token (RFC 6749, section 6) to ask the token service with instead; empty if there is none.
    pub identity_token: String,
    /// A bearer token for the registry itself; empty if there is none.
    pub registry_token: String,
}

/// Where the file is. It is read when it is asked for something: most commands never are.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    path: PathBuf,
}

/// `host[:port]` of what a user calls a server, or of a key: without scheme and path, one name for Docker Hub.
pub fn server_name(server: &str) -> &str {
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://"));
    let name = rest.unwrap_or(server).split('/').next().unwrap_or_default();
    if HUB_OTHER_NAMES.contains(&name) { HUB_NAME } else { name }
}

/// The key that the credentials for a server are written under.
pub fn server_key(server: &str) -> &str {
    match server_name(server) {
        HUB_NAME => HUB_KEY,
        name => name,
    }
}

fn is_same(key: &str, server: &str) -> bool {
    server_name(key).eq_ignore_ascii_case(server_name(server))
}

impl ClientConfig {
    /// The file at `path`, which need not be there.
    pub fn at(path: PathBuf) -> ClientConfig {
        ClientConfig { path }
    }

    /// The user's: in `$DOCKER_CONFIG`, else in `$HOME/.docker`, else `/etc/vaquita/config.json`.
    pub fn of_user() -> ClientConfig {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let directory = variable("DOCKER_CONFIG").map(PathBuf::from);
        let directory =
            directory.or_else(|| variable("HOME").map(|home| Path::new(&home).join(".docker")));
        let path = directory.map(|directory| directory.join("config.json"));
        ClientConfig::at(path.unwrap_or_else(|| SYSTEM_FILE.into()))
    }

    /// Where the file is, or would be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who to be at `registry` (`host[:port]` as in references). A helper that fails is warned about: the file may know.
    pub fn find(&self, registry: &str) -> Result<Option<Credentials>> {
        let Some(document) = document::read(&self.path)? else { return Ok(None) };
        if let Some(helper) = self.helper(&document, registry)? {
            match helper::get(&helper, server_key(registry)) {
                Ok(Some(found)) => {
                    return Ok(Some(Credentials { registry: registry.to_string(), ..found }));
                }
                Ok(None) => {}
                Err(e) => log::warn!("{e}"),
            }
        }
        let Some(auths) = document::object(&document, "auths", &self.path)? else {
            return Ok(None);
        };
        let exact = auths.get_key_value(server_key(registry));
        let found = exact.or_else(|| auths.iter().find(|(key, _)| is_same(key, registry)));
        let Some((key, Value::Object(entry))) = found else { return Ok(None) };
        self.credentials(registry, key, entry)
    }

    fn credentials(
        &self,
        registry: &str,
        key: &str,
        entry: &Object,
    ) -> Result<Option<Credentials>> {
        let text = |name| document::text(entry, name, &self.path).map(Option::unwrap_or_default);
        let (mut user, mut password) = (text("username")?, text("password")?);
        let auth = text("auth")?;
        if !auth.is_empty() {
            let decoded = base64::decode(&auth).and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = decoded.as_deref().and_then(|pair| pair.split_once(':'));
            let (name, secret) = pair.ok_or_else(|| {
                let path = self.path.display();
                let message = format!("configuration {path}: `auth` of {key} is not user:password");
                Error::new(Kind::Invalid, message)
            })?;
            (user, password) = (name.into(), secret.trim_end_matches('\0').into());
        }
        let found = Credentials {
            registry: registry.to_string(),
            user,
            password,
            identity_token: text("identitytoken")?,
            registry_token: text("registrytoken")?,
        };
        let is_empty = found.user.is_empty()
            && found.identity_token.is_empty()
            && found.registry_token.is_empty();
        Ok((!is_empty).then_some(found))
    }

    /// The name of the program that keeps what is known of `server`, if one does.
    fn helper(&self, document: &Object, server: &str) -> Result<Option<String>> {
        let of_servers = document::object(document, "credHelpers", &self.path)?;
        let mut all = of_servers.into_iter().flat_map(|helpers| helpers.iter());
        let own = all.find(|(key, _)| is_same(key, server));
        let name = match own.and_then(|(_, value)| document::as_text(value)) {
            Some(name) => Some(name.to_string()),
            None => document::text(document, "credsStore", &self.path)?,
        };
        Ok(name.filter(|name| !name.is_empty()))
    }

    /// Keeps `credentials` for their registry. On success they survive a power cut; on failure the old file stands. Says
    /// whether a program keeps the secret, rather than the file.
    pub fn keep(&self, credentials: &Credentials) -> Result<bool> {
        let key = server_key(&credentials.registry);
        self.update(|document| {
            let helper = self.helper(document, key)?;
            let mut secrets = vec![("auth", String::new()), ("identitytoken", String::new())];
            match &helper {
                Some(helper) => helper::store(helper, key, credentials)?,
                None => {
                    let pair = format!("{}:{}", credentials.user, credentials.password);
                    secrets[0].1 = base64::encode(pair.as_bytes());
                    secrets[1].1.clone_from(&credentials.identity_token);
                }
            }
            let auths = document::object_mut(document, "auths");
            let entry = auths.and_then(|auths| document::object_mut(auths, key));
            let entry = entry.ok_or_else(|| {
                let message =
                    format!("configuration {}: `auths` is not an object", self.path.display());
                Error::new(Kind::Invalid, message)
            })?;
            for name in ["username", "password", "registrytoken"] {
                json::remove(entry, name);
            }
            for (name, secret) in secrets {
                match secret.is_empty() {
                    true => json::remove(entry, name),
                    false => drop(entry.insert(name.to_string(), Value::String(secret))),
                }
            }
            Ok((true, helper.is_some()))
        })
    }

    /// Forgets what is kept for `server`, under whichever spelling; whether there was anything.
    pub fn forget(&self, server: &str) -> Result<bool> {
        if document::read(&self.path)?.is_none() {
            return Ok(false);
        }
        self.update(|document| {
            let helper = self.helper(document, server)?;
            let Some(Value::Object(auths)) = document.get_mut("auths") else {
                return Ok((false, false));
            };
            let before = auths.len();
            json::retain(auths, &|key| !is_same(key, server));
            let is_known = auths.len() < before;
            if let (Some(helper), true) = (helper, is_known) {
                helper::erase(&helper, server_key(server))?;
            }
            Ok((is_known, is_known))
        })
    }

    /// Changes the file under a lock that every vaquita takes, if `change` says that it did.
    fn update<T>(&self, change: impl FnOnce(&mut Object) -> Result<(bool, T)>) -> Result<T> {
        let doing = || format!("write configuration {}", self.path.display());
        // A file that is a link stays one.
        let path = fs_err::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::new(Kind::Invalid, format!("{}: not a file's path", doing())));
        };
        if !directory.is_dir() {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700).create(directory).context(doing)?;
        }
        let directory = File::from(file::open_directory(directory).context(doing)?);
        lock::lock(&directory, lock::Mode::Exclusive).context(doing)?;
        let mut document = document::read(&path)?.unwrap_or_default();
        let (is_changed, result) = change(&mut document)?;
        if is_changed {
            let text = document::print(&document);
            file::replace(directory.as_fd(), &name.to_string_lossy(), text.as_bytes())
                .context(doing)?;
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A configuration in a directory that goes with it.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let directory =
                std::env::temp_dir().join(format!("vaquita-{name}-{}", std::process::id()));
            Place(directory)
        }

        fn config(&self) -> ClientConfig {
            ClientConfig::at(self.0.join("docker/config.json"))
        }

        fn write(&self, text: &str) -> ClientConfig {
            fs_err::create_dir_all(self.0.join("docker")).unwrap();
            fs_err::write(self.config().path(), text).unwrap();
            self.config()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            // One that never came to be cannot be removed.
            let _ = fs_err::remove_dir_all(&self.0);
        }
    }

    fn me(registry: &str) -> Credentials {
        let (user, password) = ("me".to_string(), "se:cret".to_string());
        Credentials { registry: registry.into(), user, password, ..Credentials::default() }
    }

    #[test]
    fn names_servers_as_docker_does() {
        for (typed, name, key) in [
            ("docker.io", "index.docker.io", HUB_KEY),
            ("https://index.docker.io/v1/", "index.docker.io", HUB_KEY),
            ("registry-1.docker.io", "index.docker.io", HUB_KEY),
            ("https://r.example/v2/", "r.example", "r.example"),
            ("http://127.0.0.1:5000", "127.0.0.1:5000", "127.0.0.1:5000"),
            ("[::1]:5000", "[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!((server_name(typed), server_key(typed)), (name, key), "{typed}");
        }
    }

    #[test]
    fn finds_what_docker_wrote() {
        // "bWU6c2U6Y3JldA==" is me:se:cret.
        let place = Place::new("find");
        let config = place.write(
            r#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "bWU6c2U6Y3JldA=="},
                "https://r.example:5/v2/": {"username": "me", "password": "se:cret"},
                "R2.example": {"auth": "bWU6c2U6Y3JldA==", "identitytoken": "refresh"},
                "bearer.example": {"registrytoken": "token"},
                "empty.example": {},
                "bad.example": {"auth": "bm9jb2xvbg=="}
            }}"#,
        );
        let find = |registry| config.find(registry).map_err(|e| e.to_string());
        assert!(find("docker.io") == Ok(Some(me("docker.io"))));
        assert!(find("r.example:5") == Ok(Some(me("r.example:5"))));
        let token = Credentials { identity_token: "refresh".into(), ..me("r2.example") };
        assert!(find("r2.example") == Ok(Some(token)));
        assert_eq!(find("bearer.example").unwrap().unwrap().registry_token, "token");
        for other in ["empty.example", "r.example", "r.example:50", "example", ""] {
            assert!(find(other) == Ok(None), "{other}");
        }
        let message = find("bad.example").err().unwrap();
        assert!(message.ends_with("`auth` of bad.example is not user:password"), "{message}");
        assert!(ClientConfig::at("/nowhere/config.json".into()).find("x").unwrap().is_none());
    }

    #[test]
    fn keeps_and_forgets_and_leaves_the_rest() {
        let place = Place::new("keep");
        let config = place.config();
        assert!(!config.forget("r.example").unwrap());
        assert!(!config.path().exists());
        config.keep(&me("docker.io")).unwrap();
        let written = "{\n\t\"auths\": {\n\t\t\"https://index.docker.io/v1/\": {\n\t\t\t\"auth\": \"bWU6c2U6Y3JldA==\"\n\t\t}\n\t}\n}\n";
        assert_eq!(fs_err::read_to_string(config.path()).unwrap(), written);
        let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(config.path()), 0o600);
        assert_eq!(mode(config.path().parent().unwrap()), 0o700);
        let rest = r#"{"HttpHeaders":{"X":"y"},"psFormat":"{{.ID}}","auths":{"a":{"email":"e"},"http://r.example":{}}}"#;
        let real = place.0.join("real.json");
        fs_err::write(&real, rest).unwrap();
        fs_err::remove_file(config.path()).unwrap();
        symlink(&real, config.path()).unwrap();
        let token = Credentials {
            identity_token: "refresh".into(),
            password: String::new(),
            ..me("r.example")
        };
        config.keep(&token).unwrap();
        config.keep(&me("a")).unwrap();
        assert!(config.find("r.example").unwrap() == Some(token));
        assert!(config.forget("https://r.example/").unwrap() && config.forget("a").unwrap());
        assert!(!config.forget("a").unwrap());
        let left: Object = crate::json::parse(&fs_err::read(&real).unwrap(), "x").unwrap();
        let expected = r#"{"HttpHeaders":{"X":"y"},"auths":{},"psFormat":"{{.ID}}"}"#;
        assert_eq!(crate::json::to_string(&left), expected);
        assert!(config.path().is_symlink(), "the link stays");
    }
}
