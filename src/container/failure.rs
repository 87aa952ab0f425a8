//! From a failed step's numbers to the sentence that the user reads.
//!
//! The child sends a `Report`; the parent, which has the same steps, words it. Errors of exec read as Docker's do, and
//! their kinds give its exit codes: 127 for a command that is not there, 126 for one that cannot be executed.

use std::ffi::CStr;

use crate::error::{Error, Kind};
use crate::sys::Errno;
use crate::sys::host::uname;

use super::account::Wanted;
use super::elf;
use super::plan::Plan;
use super::step::{Step, name_of};

/// What the child knows beyond the error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Nothing.
    None,
    /// The user's name is unknown.
    NoUser,
    /// The group's name is unknown.
    NoGroup,
    /// The command is there and is no ELF file.
    NotElf,
    /// The command is there, an ELF file for this machine number.
    Elf(u16),
}

/// One record from child to parent: little numbers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which step of the plan.
    pub step: u16,
    /// Which of the command's possible paths, for `Execute`.
    pub candidate: u16,
    /// The error number.
    pub errno: i32,
    /// What else is known.
    pub note: Note,
}

/// The length of a report on the channel.
pub const REPORT_BYTES: usize = 12;

impl Report {
    /// The record: step, candidate, errno, note, in the machine's byte order, for both sides are one program.
    pub fn to_bytes(self) -> [u8; REPORT_BYTES] {
        let (note, machine) = match self.note {
            Note::None => (0, 0),
            Note::NoUser => (1, 0),
            Note::NoGroup => (2, 0),
            Note::NotElf => (3, 0),
            Note::Elf(machine) => (4_u16, machine),
        };
        let [s0, s1] = self.step.to_ne_bytes();
        let [c0, c1] = self.candidate.to_ne_bytes();
        let [e0, e1, e2, e3] = self.errno.to_ne_bytes();
        let [n0, n1] = note.to_ne_bytes();
        let [m0, m1] = machine.to_ne_bytes();
        [s0, s1, c0, c1, e0, e1, e2, e3, n0, n1, m0, m1]
    }

    /// Reads a record back.
    pub fn from_bytes(bytes: [u8; REPORT_BYTES]) -> Report {
        let [s0, s1, c0, c1, e0, e1, e2, e3, n0, n1, m0, m1] = bytes;
        let note = match u16::from_ne_bytes([n0, n1]) {
            1 => Note::NoUser,
            2 => Note::NoGroup,
            3 => Note::NotElf,
            4 => Note::Elf(u16::from_ne_bytes([m0, m1])),
            _ => Note::None,
        };
        Report {
            step: u16::from_ne_bytes([s0, s1]),
            candidate: u16::from_ne_bytes([c0, c1]),
            errno: i32::from_ne_bytes([e0, e1, e2, e3]),
            note,
        }
    }
}

/// The error that `report` stands for.
pub fn explain(plan: &Plan, report: &Report) -> Error {
    let errno = Errno::from_raw_os_error(report.errno);
    let Some(step) = plan.steps.get(usize::from(report.step)) else {
        return Error::new(Kind::Internal, "start container: its child sent nonsense");
    };
    match step {
        Step::Execute => explain_exec(plan, report, errno),
        Step::LookUpUser(request) if report.note == Note::NoUser => {
            missing("user", &request.user, "passwd")
        }
        Step::LookUpUser(request) if report.note == Note::NoGroup => {
            let group = request.group.as_ref().unwrap_or(&request.user);
            missing("group", group, "group")
        }
        Step::Mount(mount) if errno == Errno::NODEV => {
            lacks(&step.to_string(), kind_name(mount.kind))
        }
        Step::Unshare(namespace) => unshare_error(name_of(*namespace), errno),
        step => Error::io(step.to_string(), errno.into()),
    }
}

/// The error of an unshare, in parent or child.
pub fn unshare_error(name: &str, errno: Errno) -> Error {
    let action = format!("unshare {name} namespace");
    match errno {
        Errno::INVAL | Errno::NOSYS => lacks(&action, &format!("{name} namespaces")),
        errno => Error::io(action, errno.into()),
    }
}

fn kind_name(kind: &CStr) -> &str {
    match kind.to_bytes() {
        b"overlay" => "overlayfs",
        _ => kind.to_str().unwrap_or("that file system"),
    }
}

fn lacks(action: &str, what: &str) -> Error {
    Error::new(Kind::Unsupported, format!("{action}: this kernel has no {what}"))
}

fn missing(what: &str, wanted: &Wanted, file: &str) -> Error {
    let name = match wanted {
        Wanted::Name(name) => name.clone(),
        Wanted::Id(id) => id.to_string(),
    };
    let message = format!("unable to find {what} {name}: no matching entries in {file} file");
    Error::new(Kind::Invalid, message)
}

fn explain_exec(plan: &Plan, report: &Report, errno: Errno) -> Error {
    let name = &plan.command.name;
    let candidate = plan.command.candidates.get(usize::from(report.candidate));
    let path = candidate.map(|path| path.to_string_lossy()).unwrap_or_default();
    let fail = |kind, why: &str| Error::new(kind, format!("exec: \"{name}\": {why}"));
    match (errno, report.note) {
        (Errno::NOENT | Errno::NOTDIR, Note::None) if name.contains('/') => {
            fail(Kind::CommandNotFound, &format!("stat {path}: no such file or directory"))
        }
        (Errno::NOENT | Errno::NOTDIR, Note::None) => {
            fail(Kind::CommandNotFound, "executable file not found in $PATH")
        }
        (Errno::NOENT, Note::Elf(machine)) if is_foreign(machine) => {
            fail(Kind::CommandNotFound, &foreign(machine))
        }
        (Errno::NOENT, _) => {
            let why = format!("{path} is there, but not the interpreter or loader that it names");
            fail(Kind::CommandNotFound, &why)
        }
        (Errno::NOEXEC, Note::Elf(machine)) => fail(Kind::CannotInvoke, &foreign(machine)),
        (Errno::NOEXEC, _) => {
            fail(Kind::CannotInvoke, "exec format error: neither an ELF program nor a #! script")
        }
        (Errno::ACCESS, _) => fail(Kind::CannotInvoke, "permission denied"),
        (errno, _) => {
            Error::io(format!("exec: \"{name}\""), errno.into()).with_kind(Kind::CannotInvoke)
        }
    }
}

fn is_foreign(machine: u16) -> bool {
    let own = match std::env::consts::ARCH {
        "x86" => 3,
        "arm" => 40,
        "x86_64" => 62,
        "aarch64" => 183,
        "riscv64" => 243,
        _ => machine,
    };
    machine != own
}

fn foreign(machine: u16) -> String {
    let built_for = match elf::architecture(machine) {
        Some(name) => name.to_string(),
        None => format!("ELF machine {machine}"),
    };
    format!(
        "exec format error: built for {built_for}, which this kernel ({}) does not execute; an emulator has to be \
         registered in binfmt_misc, with flag F",
        uname().machine
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{Host, Spec, plan};

    #[test]
    fn a_report_travels_as_bytes() {
        for note in [Note::None, Note::NoUser, Note::NoGroup, Note::NotElf, Note::Elf(40)] {
            let report = Report { step: 513, candidate: 7, errno: 13, note };
            assert_eq!(Report::from_bytes(report.to_bytes()), report);
        }
    }

    fn sentence(step: &str, errno: i32, note: Note, command: &str) -> (Kind, String) {
        let spec = Spec {
            lowers: vec!["/l".into()],
            upper: "/u".into(),
            work: "/w".into(),
            mountpoint: "/m".into(),
            args: vec![command.into()],
            user: Some("web:www".into()),
            ..Spec::default()
        };
        let host = Host { is_root: true, ..Host::default() };
        let plan = plan(&spec, &host).unwrap();
        let step = plan.steps.iter().position(|s| s.to_string() == step).unwrap() as u16;
        let error = explain(&plan, &Report { step, candidate: 0, errno, note });
        (error.kind(), error.to_string())
    }

    #[test]
    fn words_failures() {
        const EXEC: &str = "execute the command";
        for (step, errno, note, command, kind, expected) in [
            (
                "mount overlay on \"/m\"",
                19,
                Note::None,
                "x",
                Kind::Unsupported,
                "mount overlay on \"/m\": this kernel has no overlayfs",
            ),
            (
                "unshare ipc namespace",
                22,
                Note::None,
                "x",
                Kind::Unsupported,
                "unshare ipc namespace: this kernel has no ipc namespaces",
            ),
            (
                "unshare mount namespace",
                1,
                Note::None,
                "x",
                Kind::Internal,
                "unshare mount namespace: Operation not permitted (os error 1)",
            ),
            (
                "look up user",
                2,
                Note::NoUser,
                "x",
                Kind::Invalid,
                "unable to find user web: no matching entries in passwd file",
            ),
            (
                "look up user",
                2,
                Note::NoGroup,
                "x",
                Kind::Invalid,
                "unable to find group www: no matching entries in group file",
            ),
            (
                EXEC,
                2,
                Note::None,
                "x",
                Kind::CommandNotFound,
                "exec: \"x\": executable file not found in $PATH",
            ),
            (
                EXEC,
                2,
                Note::None,
                "/x",
                Kind::CommandNotFound,
                "exec: \"/x\": stat /x: no such file or directory",
            ),
            (
                EXEC,
                2,
                Note::NotElf,
                "/x",
                Kind::CommandNotFound,
                "exec: \"/x\": /x is there, but not the interpreter or loader that it names",
            ),
            (EXEC, 13, Note::None, "/x", Kind::CannotInvoke, "exec: \"/x\": permission denied"),
            (
                EXEC,
                8,
                Note::NotElf,
                "/x",
                Kind::CannotInvoke,
                "exec: \"/x\": exec format error: neither an ELF program nor a #! script",
            ),
        ] {
            assert_eq!(sentence(step, errno, note, command), (kind, expected.to_string()));
        }
        let (kind, text) = sentence(EXEC, 8, Note::Elf(22), "/x");
        assert_eq!(kind, Kind::CannotInvoke);
        assert!(text.starts_with("exec: \"/x\": exec format error: built for s390x, which"));
    }
}
