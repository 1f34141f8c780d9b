#!/bin/sh
# dr in pipelines: stdout is data, so find, xargs, jq and head go on from it.
#
#   sh examples/pipelines.sh FOLDER   grades the photographs below FOLDER by the newest run
set -eu
photographs=${1:?a folder of photographs}
photographs=$(cd "$photographs" && pwd)
[ -z "${DR_RUNS:-}" ] || DR_RUNS=$(cd "$DR_RUNS" && pwd)
cd "$(dirname "$0")/.."
. examples/install.sh
command -v jq > /dev/null || { echo "these pipelines need jq" >&2; exit 1; }
out=${OUT:-pipelines}
mkdir -p "$out/referable"

echo "1. Names with blanks and line ends pass between NULs; one start of dr for all of them."
find "$photographs" -type f -name '*.jp*g' -print0 | dr predict -0 --quiet --format jsonl \
    > "$out/grades.jsonl" || [ -s "$out/grades.jsonl" ] # some failed: each has a row that says why

echo "2. What jq counts: photographs of each predicted grade."
jq -r '.predicted // "error"' "$out/grades.jsonl" | sort | uniq -c

echo "3. The least certain first, for a second look."
jq -r 'select(.error == null) | [(.probabilities | max), .path] | @tsv' "$out/grades.jsonl" |
    sort -n | head -n 3

echo "4. Referable photographs, copied aside."
jq -j 'select(.referable) | .path + "\u0000"' "$out/grades.jsonl" |
    xargs -0 -I '{}' cp '{}' "$out/referable"

echo "5. Records come as they are known: head stops dr early, and that is no error."
dr predict "$photographs" --quiet --batch-size 2 | head -n 2

echo "6. Figures of every run, the best first."
dr report "${DR_RUNS:-runs}" --quiet --format json |
    jq -r '.runs | sort_by(-(.record.qwk.value // -1))[] | [.name, .record.qwk.value] | @tsv'
