# Sourced by the other scripts: goes to the top of the checkout and enters its virtual environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Print the first interpreter that can make an environment for fleche: $PYTHON, PATH, then pyenv.
find_python() {
    local roots=("${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[0-9]*/bin/python3)
    local candidate
    for candidate in "${PYTHON:-python3}" python3 python3.1{3,2,1,0} "${roots[@]}"; do
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

# Print the interpreters of other versions than that of .venv, the oldest first, each version once.
other_pythons() {
    local own version candidate
    own=$(.venv/bin/python -c 'import sys; print("3.%d" % sys.version_info[1])')
    for version in 3.10 3.11 3.12 3.13; do
        [ "$version" != "$own" ] || continue
        for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python3; do
            if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
                echo "$candidate"
                break
            fi
        done
    done
}

# use_env EXTRAS [ENVIRONMENT PYTHON]: an up-to-date environment, by default .venv, first on PATH.
# Installs only when pyproject.toml has changed.
use_env() {
    local extras=$1 environment=${2:-.venv} python=${3:-}
    local stamp=$environment/.installed-${extras//,/-}
    local wanted="$PWD $(cksum <pyproject.toml)"
    if ! "$environment/bin/python" -c '' 2>/dev/null; then
        [ -n "$python" ] || python=$(find_python)
        "$python" -m venv --clear "$environment"
    fi
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "installing fleche[$extras] into $environment" >&2
        "$environment/bin/python" -m pip install --quiet --disable-pip-version-check -e ".[$extras]" >&2
        echo "$wanted" >"$stamp"
    fi
    # Where no bytecode may be written, each of the many processes compiles everything anew, and a
    # benchmark would measure that. Some modules only children import.
    unset PYTHONDONTWRITEBYTECODE
    "$environment/bin/python" -m compileall -q fleche
    export PATH="$PWD/$environment/bin:$PATH"
}
