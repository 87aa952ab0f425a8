//! `version` and `info`.

use argh::FromArgs;

use super::listing::print_documents;
use super::output;
use super::template::Missing;
use crate::engine::Engine;
use crate::error::Result;
use crate::json;
use crate::units;

/// Show the version
#[derive(FromArgs)]
#[argh(subcommand, name = "version")]
pub struct Version {
    /// json, or TEMPLATE, a Go template
    #[argh(option, short = 'f', arg_name = "format")]
    pub format: Option<String>,
}

/// Show facts about the store and this machine
#[derive(FromArgs)]
#[argh(subcommand, name = "info")]
pub struct Info {
    /// json, or TEMPLATE, a Go template
    #[argh(option, short = 'f', arg_name = "format")]
    pub format: Option<String>,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `--version` prints.
pub fn version_line() -> String {
    format!("vaquita version {VERSION}\n")
}

pub fn version(args: &Version) -> Result<i32> {
    let platform = Engine::platform();
    if let Some(format) = args.format.as_deref().filter(|format| !format.is_empty()) {
        let (os, architecture) =
            (json::quote_as_go(&platform.os), json::quote_as_go(&platform.architecture));
        let side = format!(r#"{{"Version":"{VERSION}","Os":{os},"Arch":{architecture}}}"#);
        // With no daemon, one program is both.
        let document = format!(r#"{{"Client":{side},"Server":{side}}}"#);
        return print_documents("version", &[document], format, Missing::Key);
    }
    output::print(&format!("Engine: vaquita\n Version:    {VERSION}\n OS/Arch:    {platform}\n"));
    Ok(0)
}

pub fn info(engine: &Engine, args: &Info) -> Result<i32> {
    let info = engine.info()?;
    let stopped = info.containers - info.running;
    if let Some(format) = args.format.as_deref().filter(|format| !format.is_empty()) {
        let document = format!(
            r#"{{"Containers":{},"ContainersRunning":{},"ContainersPaused":0,"ContainersStopped":{stopped},"Images":{},"Driver":"overlay2","KernelVersion":{},"OSType":"linux","Architecture":{},"NCPU":{},"MemTotal":{},"Name":{},"ServerVersion":"{VERSION}","DockerRootDir":{},"RunRoot":{}}}"#,
            info.containers,
            info.running,
            info.images,
            json::quote_as_go(&info.kernel),
            json::quote_as_go(&info.architecture),
            info.cpus,
            info.memory_bytes,
            json::quote_as_go(&info.hostname),
            json::quote_as_go(&info.data_root),
            json::quote_as_go(&info.run_root),
        );
        return print_documents("", &[document], format, Missing::Field("system.dockerInfo"));
    }
    output::print(&format!(
        "Server:\n Containers: {}\n  Running: {}\n  Stopped: {stopped}\n Images: {}\n Server Version: {VERSION}\n \
         Storage Driver: overlay2\n Kernel Version: {}\n OSType: linux\n Architecture: {}\n CPUs: {}\n \
         Total Memory: {}\n Name: {}\n Data Root: {}\n Run Root: {}\n",
        info.containers,
        info.running,
        info.images,
        info.kernel,
        info.architecture,
        info.cpus,
        units::size(info.memory_bytes),
        info.hostname,
        info.data_root,
        info.run_root,
    ));
    Ok(0)
}
