# Shared by deploy/demo and tests/run (source it): Debian packages and builds, with visible progress.
# shellcheck shell=bash

DRA_BUILD_PACKAGES="gcc libc6-dev cmake ninja-build pkgconf libuv1-dev libcurl4-openssl-dev
  libmicrohttpd-dev libcjson-dev libyaml-dev libpq-dev libcmocka-dev"
DRA_LAB_PACKAGES="postgresql-15 etcd-server iproute2 nftables python3 util-linux curl"
DRA_TEST_PACKAGES="clang"

# with_progress TEXT LOG COMMAND...: runs it, its words to LOG; says something each 4 s; on failure
# shows the end of LOG and returns the exit status.
with_progress() {
    local text=$1 log=$2 began=$SECONDS pid rc=0
    shift 2
    printf '%s\n' "$text"
    "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        # Wakes when the command ends, or after 4 s to show that it lives.
        timeout 4 tail --pid="$pid" -s 0.1 -f /dev/null 2>/dev/null
        kill -0 "$pid" 2>/dev/null &&
            printf '   ... %s s: %.100s\n' $((SECONDS - began)) "$(tail -n 1 "$log" | tr -cd '[:print:]')"
    done
    wait "$pid" || rc=$?
    if [ "$rc" -ne 0 ]; then
        printf 'failed (exit status %s); the last lines of %s:\n' "$rc" "$log" >&2
        tail -n 40 "$log" >&2
    fi
    return "$rc"
}

# missing_packages NAME...: prints those that are not installed.
missing_packages() {
    local p
    for p in "$@"; do
        dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q '^install ok installed$' || printf '%s ' "$p"
    done
}

# What apt would start or create by itself is held back meanwhile; everything is put back after.
_hold_services() {
    _policy=/usr/sbin/policy-rc.d
    _cluster=/etc/postgresql-common/createcluster.d/90-dragent-lab.conf
    if [ -e "$_policy" ]; then
        _policy=
    else
        printf '#!/bin/sh\n# put here by dragent while it installs packages; safe to remove\nexit 101\n' >"$_policy"
        chmod 755 "$_policy"
    fi
    _made_dirs=
    local d
    for d in /etc/postgresql-common /etc/postgresql-common/createcluster.d; do
        [ -d "$d" ] || { mkdir "$d" && _made_dirs="$d $_made_dirs"; }
    done
    printf 'create_main_cluster = false\n' >"$_cluster"
}

_release_services() {
    [ -z "${_policy:-}" ] || rm -f "$_policy"
    [ -z "${_cluster:-}" ] || rm -f "$_cluster"
    # shellcheck disable=SC2086  # a list of directories; those that are in use stay
    [ -z "${_made_dirs:-}" ] || rmdir $_made_dirs 2>/dev/null
    _policy='' _cluster='' _made_dirs=''
}

_apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -y -o Dpkg::Options::=--force-confold \
        install --no-install-recommends "$@"
}

# install_packages LOG NAME...: installs what is missing.
install_packages() {
    local log=$1 rc=0 missing
    shift
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        printf 'missing Debian packages: %s\ninstall them, or run this as root\n' "$missing" >&2
        return 1
    fi
    trap '_release_services' EXIT
    _hold_services
    # shellcheck disable=SC2086  # a list of names
    if ! _apt --print-uris $missing >/dev/null 2>&1 </dev/null; then
        with_progress "Fetching the package lists." "$log" apt-get update || rc=$?
    fi
    # shellcheck disable=SC2086
    [ "$rc" -ne 0 ] || with_progress "Installing from Debian: $missing" "$log" _apt $missing || rc=$?
    _release_services
    trap - EXIT
    return "$rc"
}

# build TEXT SOURCE BUILD_DIR TARGETS CMAKE_ARGUMENTS...: an empty TARGETS builds all.
build() {
    local text=$1 source=$2 dir=$3 targets=$4
    shift 4
    mkdir -p "$dir" || return 1
    with_progress "$text" "$dir/build.log" _build "$source" "$dir" "$targets" "$@"
}

_build() {
    local source=$1 dir=$2 targets=$3
    shift 3
    cmake -S "$source" -B "$dir" -G Ninja "$@" &&
        cmake --build "$dir" --parallel "$(nproc)" ${targets:+--target $targets}
}
