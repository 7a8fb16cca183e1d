# Sourced by ./demo and ./check, not run: finds a Python, and makes a virtual environment with this source tree installed in it.
# Needs nothing but a POSIX shell and Python 3.11 or newer with its venv.

say() { printf '%s\n' "$*"; }
fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# The path of a Python that is new enough: $PYTHON if it is set, else the first of the usual names.
find_python() {
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
        path=$(command -v "$name" 2>/dev/null) || continue
        if "$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$path"
            return
        fi
    done
    asked=${PYTHON:-python3}
    found=$("$asked" --version 2>&1) || found="not to be run"
    fail "Lamson needs Python 3.11 or newer, and $asked is $found.
Install one, or say where one is: PYTHON=/path/to/python3.12 ./$(basename "$0")"
}

# Debian and Ubuntu have venv in a package of its own.
need_venv() {
    "$1" -c 'import venv, ensurepip' 2>/dev/null && return
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    fail "$1 (Python $version) comes without venv.
Install it, then run this again. On Debian and Ubuntu: sudo apt install python$version-venv"
}

# set_up FOLDER WHAT: a virtual environment in FOLDER with WHAT (as "." or ".[dev]") in it. Quick when nothing changed since last time.
set_up() {
    python=$(find_python) || exit 1
    need_venv "$python"
    stamp="$("$python" --version) $PWD $(cksum <pyproject.toml)"
    if [ "$(cat "$1/installed" 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    say "Setting up $1 with $("$python" --version) (half a minute) ..."
    "$python" -m venv --clear "$1" || fail "$python could not make a virtual environment in $PWD/$1; what it says is above."
    "$1/bin/python" -m pip install -qq --disable-pip-version-check --editable "$2" ||
        fail "pip could not install what Lamson needs; what it says is above. It needs a network, or a package index that it can reach."
    printf '%s\n' "$stamp" >"$1/installed"
}
