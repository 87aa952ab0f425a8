//! The overview that `vaquita --help` prints. Each command's own help comes from its arguments' doc comments.

/// One screen.
pub const OVERVIEW: &str = "\
Usage: vaquita [OPTIONS] COMMAND [ARGUMENTS]

A small container engine that a device fleet can trust. It needs no daemon: every command does its work itself.

Images:
  pull             Download an image, or a delta to one, from a registry
  push             Upload an image to a registry
  images           List images
  history          Show the steps that made an image
  inspect          Show all that is known of an image or container, as JSON
  tag              Give an image one more name
  rmi              Remove images
  save             Write images to an archive
  load             Load images, or deltas, from an archive
  import           Make an image of a tar of its tree
  login            Log in to a registry
  logout           Log out from a registry
  delta apply      Load what a delta in a file makes, or only see that it would
  delta create     Make a delta from one image to another that pull finds by itself
  delta index      Make what a device with any older image can fetch only its lack by
  delta inspect    Show what is in a delta in a file
  delta plan       Print what each way from one image to another costs
  image delta      Make a delta image that turns one image into another, as balenaEngine does
  image prune      Remove images that nobody uses

Containers:
  run              Run a command in a new container
  ps               List containers
  rm               Remove containers
  export           Write a container's tree as a tar
  commit           Make an image of what a container wrote
  container prune  Remove stopped containers

Both:
  mount            Mount an image or a container on a directory of the host
  umount           Unmount it

System:
  check            Look for damage in the store, and mend it
  info             Show facts about the store and this machine
  system df        Show what takes space on the disk
  system prune     Remove stopped containers and images that nobody uses
  version          Show the version

Options:
  --data-root DIR           Where images and containers are kept (default /var/lib/vaquita)
  --run-root DIR            Where locks and state of this boot are kept (default /run/vaquita)
  --delta-data-root DIR     Find the bases of deltas in this data root, too; it is only read
  --ca-file FILE            Trust this certificate authority for registries, too
  --insecure-registry HOST  Speak plain HTTP or unverified TLS with this registry
  --config-file FILE        Settings of this installation (default /etc/vaquita/daemon.json)
  --max-concurrent-downloads COUNT
                            Fetch so many layers at a time, up to 3 (default 3, fewer where memory is short)
  -D, --debug               Say more about what is done
  --help, --version

'vaquita COMMAND --help' tells more about a command. Commands and options are spelled as docker's.
Exit codes: 1 the engine could not, 125 a bad option or a container that did not start, 126 and 127 a command that
cannot be executed or found, otherwise that of the container.
";

/// Whether the overview is what the user wants: `help`, `--help`, `-h`, or nothing at all.
pub fn is_asked_for(argv: &[String]) -> bool {
    match argv {
        [] => true,
        [only] => matches!(only.as_str(), "help" | "--help" | "-h"),
        _ => false,
    }
}
