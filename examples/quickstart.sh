#!/bin/sh
# From nothing but Python and pip to a report: trains on the built-in sample set (drawn eyes, no
# photographs), scores the run, grades three pictures and writes a page. sh examples/quickstart.sh
set -eu
cd "$(dirname "$0")/.."
. examples/install.sh
dr=.venv/bin/dr
show() { printf '\n$ %s\n' "$*" >&2; }

show 'run="$(dr train --size 128 --epochs 8)"'
run="$("$dr" train --size 128 --epochs 8)"
show "dr eval $run --format table"
"$dr" eval "$run" --format table
sample="$(.venv/bin/python -c 'from dr_cli import cache, sample; print(sample.ensure(cache.folder()))')"
show "dr predict --run $run  (three drawn eyes)"
find "$sample/images" -type f | sort | head -3 | "$dr" predict --run "$run" --format table -
show "dr report $(dirname "$run")"
"$dr" report "$(dirname "$run")"
