# Sourced by the other scripts: goes to the top of the checkout and enters its virtual environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Print the first interpreter that can make an environment for fleche: $PYTHON, PATH, then pyenv.
find_python() {
    local roots=("${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[0-9]*/bin/python3)
    local candidate
    for candidate in "${PYTHON:-python3}" python3 python3.1{4,3,2,1,0} "${roots[@]}"; do
        if "$candidate" -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 10)' \
            2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "fleche needs Python 3.10 or newer with its venv module, and there is none on PATH or" \
        "under pyenv: install one, or set PYTHON to its path." >&2
    return 1
}

# other_pythons [VERSION...]: print the interpreters of these versions, by default of all that fleche
# supports and all of its packages are made for, without that of .venv. One that is not here is told
# on stderr.
other_pythons() {
    local own version candidate
    own=$(.venv/bin/python -c 'import sys; print("3.%d" % sys.version_info[1])')
    [ $# -gt 0 ] || set -- 3.10 3.11 3.12 3.13 3.14
    for version in "$@"; do
        [ "$version" != "$own" ] || continue
        for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python3; do
            if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
                echo "$candidate"
                continue 2
            fi
        done
        echo "no Python $version with its venv module is on PATH or under pyenv" >&2
    done
}

# oldest_versions: print the lower bound of each package that fleche[all] needs, as constraints.
oldest_versions() {
    sed -n '/^dependencies = \[/,/^]/p; /^all = \[/,/^]/p; /^bench = /p' pyproject.toml |
        grep -oE '"[a-z0-9.]+>=[0-9.]+' | grep -vE 'cachier|diskcache' | sed 's/"//; s/>=/==/' | sort -u
}

# use_env EXTRAS [ENVIRONMENT PYTHON [OPTION...]]: an up-to-date environment, by default .venv, first
# on PATH; the options go to pip.
# Installs only when pyproject.toml has changed. What fails is returned, not left to `set -e`, which
# means nothing to a caller with && or ||: a broken environment would be taken for a complete one.
use_env() {
    local extras=$1 environment=${2:-.venv} python=${3:-} options=("${@:4}")
    local stamp=$environment/.installed-${extras//,/-}
    local wanted="$PWD $(cksum <pyproject.toml)"
    if ! "$environment/bin/python" -c '' 2>/dev/null; then
        [ -n "$python" ] || python=$(find_python) || return
        "$python" -m venv --clear "$environment" || return
    fi
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "installing fleche[$extras] into $environment" >&2
        "$environment/bin/python" -m pip install --quiet --disable-pip-version-check \
            ${options[@]+"${options[@]}"} -e ".[$extras]" >&2 || return
        echo "$wanted" >"$stamp"
    fi
    # Where no bytecode may be written, each of the many processes compiles everything anew, and a
    # benchmark would measure that. Some modules only children import.
    unset PYTHONDONTWRITEBYTECODE
    "$environment/bin/python" -m compileall -q fleche
    export PATH="$PWD/$environment/bin:$PATH"
}
