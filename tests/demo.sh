#!/bin/sh
# The main job, shown on real things: a Debian image of two dates, a real registry, and what each step costs.
#
#   sh tests/demo.sh              from a fresh clone, as root, on a Debian machine; installs what it needs
#   VAQUITA=path sh tests/demo.sh       with a binary that is built already
#
# A device pulls version 1, runs it, pulls version 2 by a delta, runs that. Then docker and podman do the same, if they
# are installed, each on a file system of its own. Ends with 1 if one of vaquita's promises for a pull does not hold.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
fixtures=$root/tests/fixtures
bench=$root/tests/bench
. "$bench/engines.sh"
# A plain su leaves the tools of root out of PATH.
. "$root/targets/env"

say() {
    printf '\n== %s\n' "$*"
}

[ "$(id -u)" = 0 ] || { echo "demo: it mounts file systems and starts containers: run it as root" >&2; exit 1; }
vaquita=${VAQUITA:-}
if [ -z "$vaquita" ]; then
    say "Tools, and the static binary of this machine"
    "$root/targets/setup" build test
    "$root/targets/build" "$("$fixtures/triple")"
    vaquita=$root/target/dist/$("$fixtures/triple")/vaquita
fi
vaquita=$(readlink -f "$vaquita")
ls -l "$vaquita"

work=$(mktemp -d "${VAQUITA_DEMO_DIR:-/var/tmp}/vaquita-demo.XXXXXX")
log=$work/registry/log
results=$work/results
cleanup() {
    # Whatever fails, the rest is still to be cleaned up.
    set +e
    engine_stop
    "$fixtures/registry" stop "$work/registry" 2>/dev/null || true
    # Containers and mounts are gone with their file systems; what is mounted still is not removed.
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

say "Two Debian images (made on the first run, kept in the tools cache)"
images=$("$fixtures/debian")
extracted_v1=$("$fixtures/contents" "$images/v1.tar" | cut -d ' ' -f 3)
extracted_v2=$("$fixtures/contents" "$images/v2.tar" | cut -d ' ' -f 3)
ls -l "$images/v1.tar" "$images/v2.tar"
address=$("$fixtures/registry" start "$work/registry")
echo "registry at $address"
for version in v1 v2; do
    "$fixtures/push" "$address/debian-app:$version" "$images/$version.tar"
done

say "The owner of the fleet makes the delta from v1 to v2, on any machine, and pushes it"
owner="$vaquita --data-root $work/owner --run-root $work/owner-run"
for version in v1 v2; do
    $owner pull -q "$address/debian-app:$version"
done
$owner delta create --push "$address/debian-app" "$address/debian-app:v1" "$address/debian-app:v2"

say "A device pulls v1, runs it, pulls v2, for which it finds the delta, runs that"
engine_start vaquita
extracted=$extracted_v1
measured "vaquita: pull v1" $engine pull "$address/debian-app:v1"
$engine run --rm "$address/debian-app:v1"
extracted=$extracted_v2
measured "vaquita: delta to v2" $engine pull --delta-only "$address/debian-app:v2"
$engine run --rm "$address/debian-app:v2"
$engine images
applied=$($engine inspect "$address/debian-app:v2" | "$fixtures/field" Id)
meant=$($owner inspect "$address/debian-app:v2" | "$fixtures/field" Id)
[ "$applied" = "$meant" ] || { echo "demo: the delta gave $applied, v2 is $meant" >&2; exit 1; }
echo "the delta gave v2 itself: $applied"
engine_stop

for name in docker podman; do
    engine_is_here $name || { say "$name is not installed: not compared"; continue; }
    say "The same with $($name --version)"
    engine_start $name || continue
    flags=
    [ $name != podman ] || flags=--tls-verify=false
    extracted=$extracted_v1
    # shellcheck disable=SC2086 # $engine and $flags are lists of words
    measured "$name: pull v1" $engine pull -q $flags "$address/debian-app:v1"
    extracted=$extracted_v2
    # shellcheck disable=SC2086
    measured "$name: pull v2" $engine pull -q $flags "$address/debian-app:v2"
    engine_stop
done

say "What it cost (peak: docker's client, daemon and containerd together, as they were needed)"
"$bench/table" "$results"

say "What vaquita promises for a pull"
"$bench/promises" "$results" "vaquita: pull v1"
