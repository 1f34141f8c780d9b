#!/bin/sh
# The test suite, from nothing but Python and pip: sh tests/run.sh [pytest options]
set -eu
cd "$(dirname "$0")/.."
extras="[test]"
. examples/install.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest "$@"
