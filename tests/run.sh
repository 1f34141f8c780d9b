#!/bin/sh
# The test suite, from nothing but Python and pip: sh tests/run.sh [pytest options]
# Files of tests go to two processes: 379 s on two cores, where one took 620 (-n 8 for more cores).
set -eu
cd "$(dirname "$0")/.."
extras="[test]"
. examples/install.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
