//! The commands and their options, for argh. Their doc comments are the help texts.

use argh::FromArgs;

use super::archive::{Export, Import, Load, Save};
use super::commit::Commit;
use super::containers::{Ps, Rm};
use super::history::History;
use super::images::{Images, Rmi, Tag};
use super::inspect::Inspect;
pub use super::login::{Login, Logout};
use super::mount::{Mount, Umount};
use super::prune::{ContainerPrune, ImagePrune, SystemPrune};
use super::system::{Info, Version};
use super::usage::Df;

/// a small container engine that a device fleet can trust
#[derive(FromArgs)]
pub struct Arguments {
    /// where images and containers are kept (default /var/lib/vaquita)
    #[argh(option, arg_name = "dir")]
    pub data_root: Option<String>,
    /// where locks and state of this boot are kept (default /run/vaquita)
    #[argh(option, arg_name = "dir")]
    pub run_root: Option<String>,
    /// another data root, in which deltas may find their basis; it is only read
    #[argh(option, arg_name = "dir")]
    pub delta_data_root: Option<String>,
    /// PEM file of a certificate authority to trust for registries; may be repeated
    #[argh(option, arg_name = "file")]
    pub ca_file: Vec<String>,
    /// registry (host[:port]) to speak plain HTTP or unverified TLS with; may be repeated
    #[argh(option, arg_name = "host")]
    pub insecure_registry: Vec<String>,
    /// daemon.json to read (default /etc/vaquita/daemon.json)
    #[argh(option, arg_name = "file")]
    pub config_file: Option<String>,
    /// layers to fetch at a time, up to 3 (default: 3, fewer where memory is short)
    #[argh(option, arg_name = "count")]
    pub max_concurrent_downloads: Option<u32>,
    /// say more about what is done, on standard error
    #[argh(switch, short = 'D')]
    pub debug: bool,
    #[argh(subcommand)]
    pub command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
#[allow(clippy::large_enum_variant)] // made once in a run
pub enum Command {
    Pull(Pull),
    Push(super::push::Push),
    Run(Run),
    Images(Images),
    Ps(Ps),
    Rm(Rm),
    Rmi(Rmi),
    Tag(Tag),
    History(History),
    Inspect(Inspect),
    Load(Load),
    Save(Save),
    Export(Export),
    Commit(Commit),
    Import(Import),
    Mount(Mount),
    Umount(Umount),
    Image(Image),
    Login(Login),
    Logout(Logout),
    Check(super::check::Check),
    Delta(super::delta::DeltaGroup),
    Container(Container),
    System(System),
    Version(Version),
    Info(Info),
}

/// Download an image from a registry; on success it survives a power cut
#[derive(FromArgs)]
#[argh(subcommand, name = "pull")]
pub struct Pull {
    /// print only the full name
    #[argh(switch, short = 'q')]
    pub quiet: bool,
    /// platform to choose from an index, such as linux/arm/v7 (default: this machine's)
    #[argh(option, arg_name = "os/arch")]
    pub platform: Option<String>,
    /// fetch layers, even where a delta costs less
    #[argh(switch)]
    pub no_delta: bool,
    /// fail rather than fetch a layer: make the image by a delta from one that is here
    #[argh(switch)]
    pub delta_only: bool,
    /// image to pull: [registry/]name[:tag|@digest]
    #[argh(positional, arg_name = "image")]
    pub reference: String,
}

/// Run a command in a new container, without any daemon
#[derive(FromArgs)]
#[argh(subcommand, name = "run")]
pub struct Run {
    /// remove the container when it ends
    #[argh(switch)]
    pub rm: bool,
    /// keep standard input open
    #[argh(switch, short = 'i')]
    pub interactive: bool,
    /// give the container a terminal
    #[argh(switch, short = 't')]
    pub tty: bool,
    /// environment variable NAME=value, or NAME to pass this process's; may be repeated
    #[argh(option, short = 'e', arg_name = "variable")]
    pub env: Vec<String>,
    /// bind mount /source:/target[:ro]; may be repeated
    #[argh(option, short = 'v', arg_name = "bind")]
    pub volume: Vec<String>,
    /// working directory in the container
    #[argh(option, short = 'w', arg_name = "dir", default = "String::new()")]
    pub workdir: String,
    /// user (name or ID) and group: user[:group]
    #[argh(option, short = 'u', arg_name = "user", default = "String::new()")]
    pub user: String,
    /// program to start instead of the image's entry point
    #[argh(option, arg_name = "program")]
    pub entrypoint: Option<String>,
    /// name of the container (default: generated)
    #[argh(option, arg_name = "name", default = "String::new()")]
    pub name: String,
    /// host name inside the container (default: its ID, or the host's with --net host)
    #[argh(option, short = 'h', arg_name = "name", default = "String::new()")]
    pub hostname: String,
    /// network: host (default) or none
    #[argh(option, arg_name = "network", default = "String::new()")]
    pub net: String,
    /// platform to pull if the image is not here
    #[argh(option, arg_name = "os/arch")]
    pub platform: Option<String>,
    /// mount the container's root file system read-only
    #[argh(switch)]
    pub read_only: bool,
    /// give all capabilities, all devices and a writable /sys
    #[argh(switch)]
    pub privileged: bool,
    /// add a capability (NET_ADMIN, ALL); may be repeated
    #[argh(option, arg_name = "capability")]
    pub cap_add: Vec<String>,
    /// drop a capability (CHOWN, ALL); may be repeated
    #[argh(option, arg_name = "capability")]
    pub cap_drop: Vec<String>,
    /// no-new-privileges: no program in the container may gain privileges; may be repeated
    #[argh(option, arg_name = "option")]
    pub security_opt: Vec<String>,
    /// image to run
    #[argh(positional, arg_name = "image")]
    pub image: String,
    /// command and arguments (default: the image's)
    #[argh(positional, arg_name = "command")]
    pub command: Vec<String>,
}

/// Commands on images. Beside those below: ls, rm, pull, push, tag, history, inspect, load, save and import, which are other
/// spellings of images, rmi and the commands of these names
#[derive(FromArgs)]
#[argh(subcommand, name = "image")]
pub struct Image {
    #[argh(subcommand)]
    pub command: ImageCommand,
}

#[derive(FromArgs)]
#[argh(subcommand)]
pub enum ImageCommand {
    Delta(Delta),
    Prune(ImagePrune),
}

/// Commands on containers. Beside those below: ls, rm, inspect, run, export and commit, which are other spellings of ps
/// and the commands of these names
#[derive(FromArgs)]
#[argh(subcommand, name = "container")]
pub struct Container {
    #[argh(subcommand)]
    pub command: ContainerCommand,
}

#[derive(FromArgs)]
#[argh(subcommand)]
pub enum ContainerCommand {
    Prune(ContainerPrune),
}

/// Commands on the whole store. Beside those below: info, which is another spelling of the command of this name
#[derive(FromArgs)]
#[argh(subcommand, name = "system")]
pub struct System {
    #[argh(subcommand)]
    pub command: SystemCommand,
}

#[derive(FromArgs)]
#[argh(subcommand)]
pub enum SystemCommand {
    Df(Df),
    Prune(SystemPrune),
}

/// Make a delta image, in balenaEngine's format, that turns one image into another
#[derive(FromArgs)]
#[argh(subcommand, name = "delta")]
pub struct Delta {
    /// name for the delta image
    #[argh(option, short = 't', arg_name = "name")]
    pub tag: Option<String>,
    /// image that the devices have
    #[argh(positional, arg_name = "old")]
    pub old: String,
    /// image that they shall have
    #[argh(positional, arg_name = "new")]
    pub new: String,
}
