#!/bin/sh
# tests/all.sh      everything that must hold, from a bare Debian machine; .ci/run calls it
# Each step is timed; a step that fails does not hide the others. Ends with `N passed, N failed`.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
passed=0
failed=0
summary=

# step NAME COMMAND...: its output goes straight through.
step() {
    name=$1
    shift
    echo "== $name: $*"
    started=$(date +%s)
    if "$@"; then
        result=ok
        passed=$((passed + 1))
    else
        result=FAIL
        failed=$((failed + 1))
    fi
    line=$(printf '%-5s %-22s %5d s' "$result" "$name" $(($(date +%s) - started)))
    echo "== $line"
    summary="$summary$line
"
}

step setup targets/setup
. targets/env
step format cargo fmt --check
step lint cargo clippy --locked --all-targets --quiet -- -D warnings
step "lint of the fault hook" cargo clippy --locked --features fault --test crash --quiet -- -D warnings
step "tests of the host" cargo test --locked --quiet
# Built apart from what is shipped: with the hook that ends the process at a chosen step.
step "crash at every step" cargo test --locked --quiet --features fault --test crash
step documentation env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
step "seven targets" targets/build all
step size tests/size
binary=$root/target/dist/$(tests/fixtures/triple)/vaquita
# What is shipped is compiled otherwise than what cargo test runs: the tests that run the program run it, too.
step "tests of the binary" env "VAQUITA=$binary" cargo test --locked --quiet --test behaviour --test bad_input --test bad_host --test memory
step demo env "VAQUITA=$binary" sh tests/demo.sh
step qemu-user qemu/test
step qemu-system qemu/test-vm
step "power cuts' disk" qemu/cuts/test
step "power cuts" qemu/powercut --seed 2026 --cuts 50 --again-limit 4
printf '\n%s%s passed, %s failed\n' "$summary" $passed $failed
[ $failed -eq 0 ]
