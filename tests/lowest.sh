#!/bin/sh
# The test suite with the lowest version of everything that pyproject.toml allows, in an environment
# of its own (7.6 GB with CUDA, .venv-lowest; LOWEST names another): sh tests/lowest.sh [pytest
# options]. PYTHON names the Python to build it on: 3.11, the only one with wheels of all floors.
set -eu
cd "$(dirname "$0")/.."
where=${LOWEST:-.venv-lowest}
[ -x "$where/bin/pip" ] || "${PYTHON:-python3}" -m venv "$where"
# Every floor "name>=1.2,<3" as the one version "name==1.2": pyproject.toml says them, nothing else.
floors=$("$where/bin/python" - <<'PYTHON'
import re, tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
for group in [project["dependencies"], *project["optional-dependencies"].values()]:
    for wanted in group:
        if floor := re.match(r"([\w-]+)>=([\d.]+)", wanted):
            print(f"{floor[1]}=={floor[2]}")
PYTHON
)
stamp="$where/installed"
if [ "$(cat "$stamp" 2>/dev/null)" != "$floors" ]; then
    # shellcheck disable=SC2086 # a word a package
    "$where/bin/python" -m pip install --quiet --disable-pip-version-check $floors
    "$where/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -e .
    printf '%s' "$floors" > "$stamp"
fi
exec "$where/bin/python" -m pytest "$@"
