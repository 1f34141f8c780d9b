# Sourced by the scripts here and by tests/run.sh, in the repository root: makes .venv, installs the
# project there with the extras named in $extras (such as "[test]"), and gives `dr` as a function.
# Run again, it installs nothing. PYTHON names the Python to build on, DR_PYTHON one that has dr.
if [ -n "${DR_PYTHON:-}" ]; then
    dr_python=$DR_PYTHON
else
    dr_python=.venv/bin/python
    if [ ! -x .venv/bin/pip ]; then # pip comes last: without it an earlier attempt broke off
        python=${PYTHON:-python3}
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
            echo "dr needs Python 3.11 or newer; PYTHON=/path/to/python3 names another one" >&2
            exit 1
        }
        "$python" -m venv .venv || {
            echo "no virtual environment: Debian and Ubuntu have it in python3-venv" >&2
            exit 1
        }
    fi
    # What was installed: the extras and the text that decides the dependencies.
    wanted="${extras:-} $(cksum < pyproject.toml)"
    stamp=".venv/installed${extras:-}"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "installing dr and what it needs into .venv (PyTorch is large: some minutes)" >&2
        "$dr_python" -m pip install --quiet --disable-pip-version-check -e ".${extras:-}" >&2
        printf '%s' "$wanted" > "$stamp"
    fi
fi
dr() { "$dr_python" -m dr_cli "$@"; }
