//! Who the command runs as: the user of `-u` or of the image, looked up in the container's own /etc/passwd and
//! /etc/group.
//!
//! The rules are Docker's (moby/sys user, GetExecUser): a number is always an ID, known or not; a name must be known;
//! without a group the user's own counts, and the groups that list the user's name. Lines come in one by one and
//! nothing here allocates: the forked child looks its user up, inside the container.

use crate::error::{Error, Kind, Result};

/// The most supplementary groups; others are left out.
pub const MAX_GROUPS: usize = 64;
/// The longest user name or home directory in bytes; a longer one is cut.
const MAX_TEXT_BYTES: usize = 1024;
/// The highest user or group ID that Docker accepts (2^31 - 1).
const MAX_ID: u32 = i32::MAX as u32;

/// A user or a group as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// By number.
    Id(u32),
    /// By name.
    Name(String),
}

/// `user[:group]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whose account.
    pub user: Wanted,
    /// A group other than the account's.
    pub group: Option<Wanted>,
}

impl Request {
    /// Parses Docker's `user`, `uid`, `user:group`, `:group`; empty is user 0.
    pub fn parse(text: &str) -> Result<Request> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let user = if user.is_empty() { Wanted::Id(0) } else { wanted(user)? };
        let group = if group.is_empty() { None } else { Some(wanted(group)?) };
        Ok(Request { user, group })
    }
}

fn wanted(text: &str) -> Result<Wanted> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Wanted::Name(text.into()));
    }
    match text.parse() {
        Ok(id) if id <= MAX_ID => Ok(Wanted::Id(id)),
        _ => {
            let message = format!("uids and gids must be in range 0-{MAX_ID}: {text}");
            Err(Error::new(Kind::Invalid, message))
        }
    }
}

/// What a lookup did not find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The user's name is not in the passwd file.
    User,
    /// The group's name is not in the group file.
    Group,
}

/// Text of bounded length.
struct Text {
    bytes: [u8; MAX_TEXT_BYTES],
    length: usize,
}

impl Text {
    fn of(text: &[u8]) -> Text {
        let mut bytes = [0; MAX_TEXT_BYTES];
        let length = text.len().min(MAX_TEXT_BYTES);
        for (slot, byte) in bytes.iter_mut().zip(text) {
            *slot = *byte;
        }
        Text { bytes, length }
    }

    fn get(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// An account as far as it is known. Feed it every line of passwd, then every line of group, then `finish` it.
pub struct Account {
    /// User ID.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    groups: [u32; MAX_GROUPS],
    group_count: usize,
    name: Text,
    home: Text,
    user_found: bool,
    group_found: bool,
}

impl Account {
    /// What holds without any passwd and group file.
    pub fn new(request: &Request) -> Account {
        let id = |wanted: &Wanted| match wanted {
            Wanted::Id(id) => Some(*id),
            Wanted::Name(_) => None,
        };
        Account {
            uid: id(&request.user).unwrap_or(0),
            gid: request.group.as_ref().and_then(id).unwrap_or(0),
            groups: [0; MAX_GROUPS],
            group_count: 0,
            name: Text::of(b""),
            home: Text::of(b"/"),
            user_found: false,
            group_found: false,
        }
    }

    /// One line of passwd(5): `name:password:uid:gid:comment:home:shell`. The first match counts.
    pub fn passwd_line(&mut self, request: &Request, line: &[u8]) {
        let mut fields = line.split(|byte| *byte == b':');
        let (Some(name), Some(uid)) = (fields.next(), fields.nth(1).and_then(number)) else {
            return;
        };
        if self.user_found || !matches(&request.user, name, uid) {
            return;
        }
        self.user_found = true;
        self.uid = uid;
        let gid = fields.next().and_then(number).unwrap_or(0);
        if request.group.is_none() {
            self.gid = gid;
        }
        self.name = Text::of(name);
        if let Some(home) = fields.nth(1).filter(|home| !home.is_empty()) {
            self.home = Text::of(home);
        }
    }

    /// One line of group(5): `name:password:gid:member,member`.
    pub fn group_line(&mut self, request: &Request, line: &[u8]) {
        let mut fields = line.split(|byte| *byte == b':');
        let (Some(name), Some(gid)) = (fields.next(), fields.nth(1).and_then(number)) else {
            return;
        };
        if let Some(group) = &request.group {
            if !self.group_found && matches(group, name, gid) {
                self.group_found = true;
                self.gid = gid;
            }
            return;
        }
        let mut members = fields.next().unwrap_or_default().split(|byte| *byte == b',');
        if self.user_found && members.any(|member| member == self.name.get()) {
            self.add_group(gid);
        }
    }

    fn add_group(&mut self, gid: u32) {
        if let Some(slot) = self.groups.get_mut(self.group_count) {
            *slot = gid;
            self.group_count += 1;
        }
    }

    /// Whether all that was asked for by name was found. Adds the primary group to the supplementary ones, as Docker
    /// does since CVE-2022-36109: a program that drops its primary group must not gain what the group is denied.
    pub fn finish(&mut self, request: &Request) -> Result<(), Missing> {
        let lacks = |wanted: &Wanted, found: bool| matches!(wanted, Wanted::Name(_)) && !found;
        if lacks(&request.user, self.user_found) {
            return Err(Missing::User);
        }
        if request.group.as_ref().is_some_and(|group| lacks(group, self.group_found)) {
            return Err(Missing::Group);
        }
        if !self.groups().contains(&self.gid) {
            self.add_group(self.gid);
        }
        Ok(())
    }

    /// The supplementary groups.
    pub fn groups(&self) -> &[u32] {
        self.groups.get(..self.group_count).unwrap_or_default()
    }

    /// The home directory, `/` where none is known.
    pub fn home(&self) -> &[u8] {
        self.home.get()
    }
}

fn number(field: &[u8]) -> Option<u32> {
    // Beyond it lies what setresuid(2) takes for "leave as it is".
    std::str::from_utf8(field).ok()?.parse().ok().filter(|&id| id <= MAX_ID)
}

fn matches(wanted: &Wanted, name: &[u8], id: u32) -> bool {
    match wanted {
        Wanted::Id(wanted) => *wanted == id,
        Wanted::Name(wanted) => wanted.as_bytes() == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n#comment\nweb:x:33:34:w:/srv:/bin/sh\n\
                          web:x:99:99::/second:\nnohome:x:7:7:::\n1234:x:5:5::/digits:";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,web\nadm:x:11:web\nweb:x:34:\nbad\n33:x:7:";

    fn look_up(text: &str) -> String {
        let request = Request::parse(text).unwrap();
        let mut account = Account::new(&request);
        PASSWD.lines().for_each(|line| account.passwd_line(&request, line.as_bytes()));
        GROUP.lines().for_each(|line| account.group_line(&request, line.as_bytes()));
        if let Err(missing) = account.finish(&request) {
            return format!("{missing:?}");
        }
        let home = String::from_utf8_lossy(account.home());
        format!("{}:{} {:?} {home}", account.uid, account.gid, account.groups())
    }

    #[test]
    fn finds_what_docker_finds() {
        for (text, expected) in [
            ("", "0:0 [10, 0] /root"),
            ("0", "0:0 [10, 0] /root"),
            ("web", "33:34 [10, 11, 34] /srv"),
            ("33", "33:34 [10, 11, 34] /srv"),
            ("web:wheel", "33:10 [10] /srv"),
            ("web:77", "33:77 [77] /srv"),
            ("1000", "1000:0 [0] /"),
            ("1000:adm", "1000:11 [11] /"),
            ("1234", "1234:0 [0] /"),
            ("0:33", "0:33 [33] /root"),
            (":adm", "0:11 [11] /root"),
            ("nohome", "7:7 [7] /"),
            ("nobody", "User"),
            ("web:nobody", "Group"),
        ] {
            assert_eq!(look_up(text), expected, "user {text:?}");
        }
    }

    #[test]
    fn reads_no_id_that_means_no_change() {
        assert_eq!(number(b"2147483647"), Some(MAX_ID));
        assert_eq!(number(b"4294967295"), None);
    }

    #[test]
    fn refuses_ids_out_of_range() {
        let error = Request::parse("2147483648").unwrap_err();
        let expected = "uids and gids must be in range 0-2147483647: 2147483648";
        assert_eq!(error.to_string(), expected);
    }
}
