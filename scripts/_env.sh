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

# use_env EXTRAS: an up-to-date .venv, first on PATH. Installs only when pyproject.toml has changed.
use_env() {
    local extras=$1 python
    local stamp=.venv/.installed-${extras//,/-}
    local wanted="$PWD $(cksum <pyproject.toml)"
    if ! .venv/bin/python -c '' 2>/dev/null; then
        python=$(find_python)
        "$python" -m venv --clear .venv
    fi
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "installing fleche[$extras] into .venv" >&2
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$extras]" >&2
        echo "$wanted" >"$stamp"
    fi
    # Where no bytecode may be written, each of the many processes compiles everything anew, and a
    # benchmark would measure that. Some modules only children import.
    unset PYTHONDONTWRITEBYTECODE
    .venv/bin/python -m compileall -q fleche
    export PATH="$PWD/.venv/bin:$PATH"
}
