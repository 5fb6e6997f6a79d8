# SPDX-License-Identifier: MIT
# Read by the scripts of this project (". packaging/lib.sh"): saying what is done, and having apt install what is missing.

say() {
        printf '\n== %s\n' "$*"
}

die() {
        printf '%s: %s\n' "${0##*/}" "$*" >&2
        exit 1
}

# Runs a command as root: as we are, or by sudo.
as_root() {
        if [ "$(id -u)" -eq 0 ]; then
                "$@"
        elif command -v sudo >/dev/null; then
                sudo "$@"
        else
                die "needs root for: $*"
        fi
}

# Quiet unless it fails.
quietly() {
        quiet_output=$(mktemp)
        if "$@" >"$quiet_output" 2>&1; then
                rm -f "$quiet_output"
        else
                quiet_status=$?
                cat "$quiet_output" >&2
                rm -f "$quiet_output"
                return $quiet_status
        fi
}

apt_get() {
        quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 "$@"
}

# The lists are fetched once, and only when something is to be installed.
apt_update() {
        [ -z "${apt_updated:-}" ] || return 0
        apt_get update || die "apt-get update failed"
        apt_updated=1
}

package_installed() {
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Installs those of the packages that are missing.
need_packages() {
        missing=
        for package; do
                package_installed "$package" || missing="$missing $package"
        done
        [ -n "$missing" ] || return 0

        command -v apt-get >/dev/null || die "missing:$missing, and there is no apt-get to install them"
        say "installing$missing"
        apt_update
        apt_get install --no-install-recommends $missing || die "cannot install$missing"
}

# Installs what packaging/debian/control asks of a machine that builds.
need_build_dependencies() {
        need_packages build-essential
        dpkg-checkbuilddeps "$top/packaging/debian/control" 2>/dev/null && return 0

        say "installing what the build needs: $(dpkg-checkbuilddeps "$top/packaging/debian/control" 2>&1 | sed 's/.*dependencies: //')"
        apt_update
        apt_get build-dep --no-install-recommends "$top/packaging" || die "cannot install what the build needs"
}
