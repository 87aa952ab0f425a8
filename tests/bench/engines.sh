# Sourced: container engines to measure, each started afresh on an ext4 of its own. POSIX sh.
#
#   fresh_disk                         mounts a new ext4 at $disk
#   engine_is_here NAME                is that engine installed?      vaquita, docker, podman
#   engine_start NAME                  sets $engine to the command that speaks to it, $with to its daemons for `measure`
#   measured LABEL COMMAND...          runs it, with its costs appended to $results; $extracted: bytes of the image's files
#   engine_stop                        ends what engine_start started, unmounts the disk
#
# The caller sets $work (a scratch directory), $bench (this directory), $vaquita, $log (the registry's) and $results.
# Why a new file system each time: ext4 avoids the inodes of files deleted a short while ago, and then is many times slower.

disk=
daemon=
with=

fresh_disk() {
    disk=$work/disk
    mkdir -p "$disk"
    rm -f "$work/disk.img"
    truncate -s 3G "$work/disk.img"
    # Nothing left to initialize in the background, whose writes would count as the engine's.
    mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$work/disk.img"
    # Direct I/O, so that the disk has no second cache below it.
    device=$(losetup -f --show "$work/disk.img")
    losetup --direct-io=on "$device" 2>/dev/null || true
    mount "$device" "$disk" || {
        losetup -d "$device"
        return 1
    }
    # It goes by itself when it is unmounted.
    losetup -d "$device"
}

engine_is_here() {
    case $1 in
    vaquita) [ -x "$vaquita" ] ;;
    docker) command -v dockerd >/dev/null && command -v docker >/dev/null && command -v containerd >/dev/null ;;
    podman) command -v podman >/dev/null ;;
    esac
}

engine_start() {
    fresh_disk
    with=
    case $1 in
    vaquita) engine="$vaquita --data-root $disk/data --run-root $work/run" ;;
    podman) engine="podman --root $disk/root --runroot $work/podman-run --tmpdir $work/podman-tmp" ;;
    docker) start_dockerd ;;
    esac
}

# No bridge and no packet filter: a pull needs neither, and the machine's own stay as they are.
start_dockerd() {
    engine="docker -H unix://$work/docker.sock"
    dockerd --data-root "$disk/data" --exec-root "$work/docker-run" -p "$work/docker.pid" -H "unix://$work/docker.sock" \
        --bridge none --iptables=false --ip6tables=false >"$work/dockerd.log" 2>&1 &
    daemon=$!
    waited=0
    until $engine version >/dev/null 2>&1; do
        kill -0 "$daemon" 2>/dev/null && [ $((waited += 1)) -lt 300 ] || {
            echo "dockerd does not start: $(tail -n 1 "$work/dockerd.log")" >&2
            engine_stop
            return 1
        }
        sleep 0.1
    done
    with="--with $daemon"
    for child in $(cat "/proc/$daemon/task/"*/children); do
        with="$with --with $child"
    done
}

measured() {
    label=$1
    shift
    # Where the image store is podman's, its big temporary files shall be on the same disk.
    # shellcheck disable=SC2086 # $with is a list of options
    TMPDIR=$disk "$bench/measure" --to "$results" --label "$label" --disk "$disk" --log "$log" \
        --extracted "$extracted" $with -- "$@"
}

engine_stop() {
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null && wait "$daemon" 2>/dev/null || true
        daemon=
    fi
    if [ -n "$disk" ] && mountpoint -q "$disk"; then
        umount -R "$disk" || umount -R -l "$disk"
    fi
    # The network namespace that dockerd leaves behind.
    if mountpoint -q "$work/docker-run/netns/default"; then
        umount "$work/docker-run/netns/default"
    fi
    disk=
    with=
}
