# Sourced by quickstart.sh and tests/run.sh, in the repository root: makes .venv and installs the
# project there with the extras named in $extras (such as "[test]"). Run again, it installs nothing.
python=${PYTHON:-python3}
if [ ! -x .venv/bin/python ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "dr needs Python 3.11 or newer; PYTHON=/path/to/python3 names another one" >&2
        exit 1
    }
    "$python" -m venv .venv
fi
# What was installed: the extras and the text that decides the dependencies.
wanted="${extras:-} $(cksum < pyproject.toml)"
stamp=".venv/installed${extras:-}"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing dr and what it needs into .venv (PyTorch is large: some minutes)" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".${extras:-}" >&2
    printf '%s' "$wanted" > "$stamp"
fi
