//! `inspect`: images and containers as Docker's API describes them (v1.41, ImageInspect and ContainerInspect), as far as
//! the engine knows the facts; a field it does not know is left out rather than invented.

use miniserde::Serialize;

use super::Engine;
use super::containers::ContainerSize;
use crate::error::{Error, Kind, Result};
use crate::json;
use crate::oci::config::{Execution, RootFs};
use crate::store::{Container, Image, Status};

#[derive(Serialize)]
#[allow(non_snake_case)] // the API's names
struct ImageInspect {
    Id: String,
    RepoTags: Vec<String>,
    RepoDigests: Vec<String>,
    Created: String,
    Author: String,
    Config: Execution,
    Architecture: String,
    Variant: Option<String>,
    Os: String,
    Size: u64,
    GraphDriver: GraphDriver,
    RootFS: RootFsInspect,
}

#[derive(Serialize)]
#[allow(non_snake_case)]
struct GraphDriver {
    Data: Option<GraphData>,
    Name: String,
}

#[derive(Serialize)]
#[allow(non_snake_case)]
struct GraphData {
    LowerDir: String,
    UpperDir: String,
    WorkDir: String,
}

#[derive(Serialize)]
#[allow(non_snake_case)]
struct RootFsInspect {
    Type: String,
    Layers: Vec<String>,
}

#[derive(Serialize)]
#[allow(non_snake_case)]
struct ContainerInspect {
    Id: String,
    Created: String,
    Path: String,
    Args: Vec<String>,
    State: StateInspect,
    Image: String,
    HostnamePath: String,
    HostsPath: String,
    ResolvConfPath: String,
    Name: String,
    Driver: String,
    Platform: String,
    HostConfig: HostConfig,
    GraphDriver: GraphDriver,
    Config: ContainerConfig,
}

#[derive(Serialize)]
#[allow(non_snake_case)]
struct StateInspect {
    Status: String,
    Running: bool,
    Pid: u32,
    ExitCode: i32,
    Error: String,
    StartedAt: String,
    FinishedAt: String,
}

#[derive(Serialize)]
#[allow(non_snake_case)]
struct HostConfig {
    Binds: Option<Vec<String>>,
    NetworkMode: String,
    AutoRemove: bool,
    CapAdd: Option<Vec<String>>,
    CapDrop: Option<Vec<String>>,
    Privileged: bool,
    ReadonlyRootfs: bool,
    SecurityOpt: Option<Vec<String>>,
}

#[derive(Serialize)]
#[allow(non_snake_case)]
struct ContainerConfig {
    Hostname: String,
    User: String,
    Tty: bool,
    OpenStdin: bool,
    Env: Vec<String>,
    Cmd: Vec<String>,
    Image: String,
    WorkingDir: String,
}

/// What `inspect` looks among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspectable {
    /// Containers, then images.
    Any,
    /// Containers.
    Container,
    /// Images.
    Image,
}

/// Go's zero time, which the API gives for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Engine {
    /// A JSON object for what `name` means among `wanted`: a container before an image. `with_size` measures a
    /// container, which walks its writable layer.
    pub fn inspect(&self, name: &str, wanted: Inspectable, with_size: bool) -> Result<String> {
        if wanted != Inspectable::Image {
            match self.store.find_container(name) {
                Ok(container) => return self.container_json(&container, with_size),
                Err(e) if e.kind() != Kind::NotFound || wanted == Inspectable::Container => {
                    return Err(e);
                }
                Err(_) => {}
            }
        }
        match self.store.find_image(name) {
            Ok(image) => Ok(json::to_string(&self.inspect_image(image)?)),
            Err(e) if e.kind() == Kind::NotFound && wanted == Inspectable::Any => {
                Err(Error::new(Kind::NotFound, format!("No such object: {name}")))
            }
            Err(e) => Err(e),
        }
    }

    fn container_json(&self, container: &Container, with_size: bool) -> Result<String> {
        let mut text = json::to_string(&self.inspect_container(container)?);
        if with_size {
            let ContainerSize { written_bytes, total_bytes } = self.size_of(container)?;
            // Docker leaves the fields out where they are not asked for.
            text.pop();
            text.push_str(&format!(r#","SizeRw":{written_bytes},"SizeRootFs":{total_bytes}}}"#));
        }
        Ok(text)
    }

    fn inspect_image(&self, image: Image) -> Result<ImageInspect> {
        let size = self.store.image_bytes(&image)?;
        let (mut tags, mut digests) = (Vec::new(), Vec::new());
        for reference in self.store.references_of(&image.id)? {
            let list = if reference.tag().is_some() { &mut tags } else { &mut digests };
            list.push(reference.familiar());
        }
        let config = image.config;
        let RootFs { kind, diff_ids } = config.rootfs;
        Ok(ImageInspect {
            Id: image.id.to_string(),
            RepoTags: tags,
            RepoDigests: digests,
            Created: config.created.unwrap_or_default(),
            Author: config.author.unwrap_or_default(),
            Config: config.config.unwrap_or_default(),
            Architecture: config.architecture.unwrap_or_default(),
            Variant: config.variant,
            Os: config.os.unwrap_or_default(),
            Size: size,
            GraphDriver: GraphDriver { Data: None, Name: "overlay2".into() },
            RootFS: RootFsInspect { Type: kind, Layers: diff_ids },
        })
    }

    fn inspect_container(&self, container: &Container) -> Result<ContainerInspect> {
        let (record, state) = (&container.record, &container.state);
        let path = |name: &str| container.directory.join(name).display().to_string();
        let is_running = container.status == Status::Running;
        let (command, args) = match record.args.split_first() {
            Some((command, args)) => (command.clone(), args.to_vec()),
            None => (String::new(), Vec::new()),
        };
        Ok(ContainerInspect {
            Id: record.id.clone(),
            Created: record.created.clone(),
            Path: command,
            Args: args,
            State: StateInspect {
                Status: container.status.as_str().into(),
                Running: is_running,
                Pid: if is_running { state.pid } else { 0 },
                ExitCode: state.exit_code,
                Error: state.error.clone(),
                StartedAt: state.started.clone().unwrap_or(NEVER.into()),
                FinishedAt: state.finished.clone().unwrap_or(NEVER.into()),
            },
            Image: record.image.clone(),
            HostnamePath: path("etc/hostname"),
            HostsPath: path("etc/hosts"),
            ResolvConfPath: path("etc/resolv.conf"),
            Name: format!("/{}", record.name),
            Driver: "overlay2".into(),
            Platform: "linux".into(),
            HostConfig: host_config(container),
            GraphDriver: GraphDriver {
                Data: Some(GraphData {
                    LowerDir: self.lower_directories(container)?,
                    UpperDir: path("diff"),
                    WorkDir: path("work"),
                }),
                Name: "overlay2".into(),
            },
            Config: ContainerConfig {
                Hostname: record.hostname.clone(),
                User: record.user.clone(),
                Tty: record.tty,
                OpenStdin: record.stdin,
                Env: record.env.clone(),
                Cmd: record.args.clone(),
                Image: record.image_name.clone(),
                WorkingDir: record.working_dir.clone(),
            },
        })
    }

    fn lower_directories(&self, container: &Container) -> Result<String> {
        let lowers = self.lowers(&container.record.image)?;
        let lowers: Vec<String> = lowers.iter().map(|path| path.display().to_string()).collect();
        Ok(lowers.join(":"))
    }
}

fn host_config(container: &Container) -> HostConfig {
    let record = &container.record;
    let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    HostConfig {
        Binds: some(&record.binds),
        NetworkMode: record.network.clone(),
        AutoRemove: record.auto_remove,
        CapAdd: some(&record.cap_add),
        CapDrop: some(&record.cap_drop),
        Privileged: record.privileged,
        ReadonlyRootfs: record.read_only,
        SecurityOpt: record.no_new_privileges.then(|| vec!["no-new-privileges".into()]),
    }
}
