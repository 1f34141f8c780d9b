#!/bin/sh
# From nothing but Python and pip to a report: trains on the built-in sample set (drawn eyes, no
# photographs), scores the run, grades three pictures and writes a page. sh examples/quickstart.sh
# EPOCHS= and SIZE= shrink or lengthen it, DR_DATA= names another data set.
set -eu
cd "$(dirname "$0")/.."
. examples/install.sh
show() { printf '\n$ %s\n' "$*" >&2; }

# As many steps as six epochs of the default 600 eyes, and more eyes teach more: examples/recipes.md.
set -- --size "${SIZE:-128}" --epochs "${EPOCHS:-3}"
[ -n "${DR_DATA:-}" ] || set -- sample:n=1200,size=160 "$@"
show "dr train $*"
run="$(dr train "$@")"
show "dr eval $run --format table"
dr eval "$run" --format table
# The first three photographs of the test split, by the paths that the run kept.
photographs="$("$dr_python" - "$run" <<'PYTHON'
import csv, json, pathlib, sys
run = pathlib.Path(sys.argv[1])
root = pathlib.Path(json.loads((run / "config.json").read_text("utf-8"))["data"]["root"])
with (run / "predictions-test.csv").open(encoding="utf-8", newline="") as file:
    print(*(root / row["path"] for row, _ in zip(csv.DictReader(file), range(3))), sep="\n")
PYTHON
)"
show "dr predict --run $run -   (three test images, by their paths)"
printf '%s\n' "$photographs" | dr predict --run "$run" --format table -
show "dr report $(dirname "$run")"
dr report "$(dirname "$run")"
