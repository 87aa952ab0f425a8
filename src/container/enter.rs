//! The child's side of a start: it walks the plan's steps and becomes the command.
//!
//! It runs between fork and exec, so it allocates nothing, locks nothing and logs nothing; all strings were laid out
//! before the fork, all else lies on the stack. A step that fails is told to the parent as numbers.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use crate::sys::mount::{self, DescriptorPath, MountFlags, Restriction};
use crate::sys::process::{self, ExecList, Namespace};
use crate::sys::resolve::{Make, resolve};
use crate::sys::{Errno, capability, channel, descriptor, interface, rooted, signal, terminal};

use super::account::{Account, Missing, Request};
use super::elf;
use super::failure::{Note, Report};
use super::plan::Plan;
use super::step::{Mount, Step};

/// What was prepared before the fork for the child to use.
pub struct Prepared<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// The command's arguments.
    pub arguments: ExecList,
    /// Its environment, with room for HOME.
    pub environment: ExecList,
    /// Empty, with room for as many as the plan opens.
    pub sources: Vec<OwnedFd>,
    /// Which standard descriptors were closed: bit n for descriptor n.
    pub closed_stdio: u8,
}

/// The child on its way through the steps.
struct Child<'a> {
    prepared: &'a mut Prepared<'a>,
    channel: &'a OwnedFd,
    host_root: Option<OwnedFd>,
    /// The container's root, once it is entered.
    root: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    account: Option<Account>,
}

/// Why a step failed.
struct Fault {
    errno: Errno,
    note: Note,
    candidate: u16,
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        Fault { errno, note: Note::None, candidate: 0 }
    }
}

/// Walks the steps; returns only if one failed, after telling the parent which.
pub fn enter<'a>(prepared: &'a mut Prepared<'a>, channel: &'a OwnedFd) {
    let plan = prepared.plan;
    let mut child =
        Child { prepared, channel, host_root: None, root: None, terminal: None, account: None };
    for (number, step) in plan.steps.iter().enumerate() {
        if let Err(fault) = child.take(step) {
            let Fault { errno, note, candidate } = fault;
            let report =
                Report { step: number as u16, candidate, errno: errno.raw_os_error(), note };
            // If the parent is gone too, there is nobody to tell.
            let _ = channel::send(channel, &report.to_bytes(), None);
            return;
        }
    }
}

impl Child<'_> {
    fn take(&mut self, step: &Step) -> Result<(), Fault> {
        match step {
            Step::DieWithParent => self.die_with_parent()?,
            Step::StartSession => process::start_session()?,
            Step::SetUmask(mask) => process::set_umask(*mask),
            Step::Unshare(namespace) => unshare(*namespace)?,
            Step::MakeMountsPrivate => mount::make_all_private()?,
            Step::HoldHostRoot => self.host_root = Some(descriptor::open_path(c"/")?),
            Step::OpenSource(path) => self.prepared.sources.push(descriptor::open_path(path)?),
            Step::Mount(mount) => self.mount(mount)?,
            Step::ChangeDirectory(path) => process::change_directory(path)?,
            Step::EnterWorkingDirectory(path) => self.enter_working_directory(path)?,
            Step::Link { target, path } => rooted::make_link(target, path)?,
            Step::EnterRoot => self.enter_root()?,
            Step::MakeDevice { path, device, alone } => self.make_device(path, device, *alone)?,
            Step::OpenTerminal => self.open_terminal()?,
            Step::Bind { source, target, restriction } => {
                self.bind(*source, target, *restriction)?
            }
            Step::LeaveHost { mounts, is_initial } => self.leave_host(mounts, *is_initial)?,
            Step::Mask(path) => mask(path)?,
            Step::MakeReadOnly(path) => make_read_only(path)?,
            Step::ForbidDevices(path) => {
                mount::restrict_one(path, Restriction { read_only: false, no_devices: true })?;
            }
            Step::SetHostname(name) => process::set_hostname(name)?,
            Step::BringLoopbackUp => interface::bring_loopback_up()?,
            Step::LookUpUser(request) => self.account = Some(look_up(request)?),
            Step::SetStdio { tty, stdin } => self.set_stdio(*tty, *stdin)?,
            Step::CloseDescriptors => descriptor::close_all_but(self.channel),
            Step::BoundCapabilities(mask) => capability::bound(*mask)?,
            Step::ChangeUser => self.change_user()?,
            Step::ReduceCapabilities(mask) => self.reduce_capabilities(*mask)?,
            Step::ForbidNewPrivileges => process::set_no_new_privileges()?,
            Step::ResetSignals => signal::reset_all(),
            Step::Execute => return Err(self.execute()),
        }
        Ok(())
    }

    /// The parent may have ended before the request was made: then the other end of the channel is closed.
    fn die_with_parent(&self) -> Result<(), Errno> {
        process::die_with_parent()?;
        if channel::is_abandoned(self.channel.as_fd()) { Err(Errno::PIPE) } else { Ok(()) }
    }

    /// Before the root is entered, on a directory of the host that is there; after, on one of the container.
    fn mount(&self, wanted: &Mount) -> Result<(), Errno> {
        let Mount { kind, flags, data, .. } = wanted;
        if self.root.is_none() {
            return mount::mount(kind, &wanted.target, *flags, data);
        }
        if *kind == c"proc" {
            // The first one: with no procfs in reach there is no link that leads out.
            rooted::make_directories(&wanted.target)?;
            return mount::mount(kind, &wanted.target, *flags, data);
        }
        let target = self.resolve(&wanted.target, Make::Directories)?;
        let target = DescriptorPath::of(&target)?;
        // Read-only comes after: the first mount of a sysfs decides for all of the machine.
        let first = flags.difference(MountFlags::RDONLY);
        match (mount::mount(kind, target.as_c_str()?, first, data), &self.host_root) {
            (Err(Errno::NODEV), _) if wanted.optional => return Ok(()),
            // A sysfs of a network namespace that is not ours to mount: show the host's.
            (Err(Errno::PERM), Some(host)) if *kind == c"sysfs" => {
                mount::bind_below(host, "/sys", target.as_c_str()?)?;
            }
            (result, _) => result?,
        }
        match flags.contains(MountFlags::RDONLY) {
            true => {
                self.restrict(&wanted.target, Restriction { read_only: true, no_devices: true })
            }
            false => Ok(()),
        }
    }

    fn resolve(&self, path: &CStr, make: Make) -> Result<OwnedFd, Errno> {
        resolve(self.root.as_ref().ok_or(Errno::BADF)?, path, make)
    }

    fn restrict(&self, target: &CStr, restriction: Restriction) -> Result<(), Errno> {
        // Once more, for what was mounted there.
        let mounted = self.resolve(target, Make::Nothing)?;
        mount::restrict(DescriptorPath::of(&mounted)?.as_c_str()?, restriction)
    }

    fn enter_root(&mut self) -> Result<(), Errno> {
        self.root = Some(descriptor::open_path(c".")?);
        mount::change_root_to_working_directory()
    }

    fn make_device(&self, path: &CStr, device: &rooted::Device, alone: bool) -> Result<(), Errno> {
        match rooted::make_device(path, device) {
            Err(Errno::PERM) => {
                rooted::make_file(path)?;
                self.bind_host_device(path)
            }
            Ok(()) if alone => mount::bind(path, path),
            result => result,
        }
    }

    fn bind_host_device(&self, path: &CStr) -> Result<(), Errno> {
        let root = self.host_root.as_ref().ok_or(Errno::BADF)?;
        mount::bind_below(root, path.to_str().map_err(|_| Errno::INVAL)?, path)
    }

    fn open_terminal(&mut self) -> Result<(), Errno> {
        let (master, slave) = terminal::open_pair()?;
        // Here, not only in the parent: the command may ask for it at once. One that cannot be resized serves as well.
        let _ = terminal::inherit_size(master.as_fd());
        rooted::make_file(c"/dev/console")?;
        mount::bind(DescriptorPath::of(&slave)?.as_c_str()?, c"/dev/console")?;
        channel::send(self.channel, &[0], Some(&master))?;
        self.terminal = Some(slave);
        Ok(())
    }

    fn bind(&self, source: usize, target: &CStr, restriction: Restriction) -> Result<(), Errno> {
        let source = self.prepared.sources.get(source).ok_or(Errno::BADF)?;
        let make = if rooted::is_directory(source)? { Make::Directories } else { Make::File };
        let place = self.resolve(target, make)?;
        let (from, to) = (DescriptorPath::of(source)?, DescriptorPath::of(&place)?);
        mount::bind(from.as_c_str()?, to.as_c_str()?)?;
        if restriction == Restriction::default() {
            return Ok(());
        }
        self.restrict(target, restriction)
    }

    /// From pivot_root to the end no path is resolved but `.` and `/`.
    fn leave_host(&mut self, mounts: &[CString], is_initial: bool) -> Result<(), Errno> {
        self.prepared.sources.clear();
        let host = self.host_root.take().ok_or(Errno::BADF)?;
        let root = self.root.as_ref().ok_or(Errno::BADF)?;
        process::change_directory_to(&host)?;
        mount::change_root_to_working_directory()?;
        process::change_directory_to(root)?;
        match mount::pivot_to_working_directory() {
            Err(Errno::INVAL) if is_initial => {
                mount::move_working_directory_to_root()?;
                process::change_directory_to(&host)?;
                // The last mounted lies on top. One that stays is hidden, and only keeps its device busy.
                for path in mounts.iter().rev() {
                    let _ = mount::detach(path);
                }
            }
            result => {
                result?;
                process::change_directory_to(&host)?;
                mount::detach(c".")?;
            }
        }
        process::change_directory(c"/")
    }

    fn enter_working_directory(&self, path: &CStr) -> Result<(), Errno> {
        process::change_directory_to(&self.resolve(path, Make::Directories)?)
    }

    fn set_stdio(&mut self, tty: bool, stdin: bool) -> Result<(), Errno> {
        if let Some(slave) = self.terminal.take().filter(|_| tty) {
            let uid = self.account.as_ref().map_or(0, |account| account.uid);
            rooted::give_to(&slave, uid)?;
            (0..3).try_for_each(|number| descriptor::put_at(&slave, number))?;
            return terminal::make_controlling(&slave);
        }
        for number in 0..3 {
            let closed = self.prepared.closed_stdio & (1 << number) != 0;
            if closed || (number == 0 && !stdin) {
                descriptor::put_at(rooted::open_device(c"/dev/null")?, number)?;
            }
        }
        Ok(())
    }

    fn change_user(&self) -> Result<(), Errno> {
        let account = self.account.as_ref().ok_or(Errno::INVAL)?;
        process::change_user(account.uid, account.gid, account.groups())
    }

    /// Another user than 0 has none left.
    fn reduce_capabilities(&self, mask: u64) -> Result<(), Errno> {
        let is_root = self.account.as_ref().is_some_and(|account| account.uid == 0);
        capability::reduce(if is_root { mask } else { 0 })
    }

    fn execute(&mut self) -> Fault {
        let command = &self.prepared.plan.command;
        let mut home = [0_u8; HOME_BYTES];
        let home = match &self.account {
            Some(account) if command.needs_home => home_variable(account, &mut home),
            _ => None,
        };
        let mut best = Fault::from(Errno::NOENT);
        for (number, candidate) in command.candidates.iter().enumerate() {
            let Prepared { arguments, environment, .. } = &mut *self.prepared;
            let errno = process::exec(candidate, arguments, environment, home);
            let candidate_number = number as u16;
            match errno {
                Errno::NOENT | Errno::NOTDIR if !rooted::exists(candidate) => {}
                Errno::ACCESS => {
                    best = Fault { errno, note: Note::None, candidate: candidate_number };
                }
                _ => return Fault { errno, note: inspect(candidate), candidate: candidate_number },
            }
        }
        best
    }
}

/// Room for `HOME=` and the longest home directory.
const HOME_BYTES: usize = 1280;

fn home_variable<'a>(account: &Account, buffer: &'a mut [u8; HOME_BYTES]) -> Option<&'a CStr> {
    let text = b"HOME=".iter().chain(account.home());
    for (slot, byte) in buffer.iter_mut().zip(text) {
        *slot = *byte;
    }
    CStr::from_bytes_until_nul(buffer).ok()
}

/// Kernels without cgroup namespaces (before 4.6) do without.
fn unshare(namespace: Namespace) -> Result<(), Errno> {
    match process::unshare(namespace) {
        Err(Errno::INVAL) if namespace == Namespace::Cgroup => Ok(()),
        result => result,
    }
}

/// A file is covered with /dev/null, a directory with an empty one (runc, maskPath).
fn mask(path: &CStr) -> Result<(), Errno> {
    match mount::bind(c"/dev/null", path) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTDIR) => {
            let flags =
                MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount::mount(c"tmpfs", path, flags, c"")
        }
        result => result,
    }
}

fn make_read_only(path: &CStr) -> Result<(), Errno> {
    let restriction = Restriction { read_only: true, no_devices: false };
    if path == c"/" {
        return mount::restrict_one(path, restriction);
    }
    match mount::bind(path, path) {
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
        Ok(()) => mount::restrict_one(path, restriction),
    }
}

fn look_up(request: &Request) -> Result<Account, Fault> {
    let mut account = Account::new(request);
    // A container without these files has no names; the lookup then says which was not found.
    let _ = rooted::for_each_line(c"/etc/passwd", &mut |line| account.passwd_line(request, line));
    let _ = rooted::for_each_line(c"/etc/group", &mut |line| account.group_line(request, line));
    match account.finish(request) {
        Ok(()) => Ok(account),
        Err(missing) => {
            let note = match missing {
                Missing::User => Note::NoUser,
                Missing::Group => Note::NoGroup,
            };
            Err(Fault { errno: Errno::NOENT, note, candidate: 0 })
        }
    }
}

/// What a file that could not be executed is.
fn inspect(path: &CStr) -> Note {
    let mut header = [0_u8; elf::HEADER_BYTES];
    match rooted::read_beginning(path, &mut header) {
        Ok(_) => elf::machine(&header).map_or(Note::NotElf, Note::Elf),
        Err(_) => Note::None,
    }
}
