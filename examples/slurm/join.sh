#!/bin/sh
# The tables of predict.sbatch as one, in the order of the list:
#
#   sh examples/slurm/join.sh grades > grades.csv
#
# Task k has the rows k, k + N, k + 2N, … of it, so one row of each task by turns is that order.
set -eu
folder=${1:?the folder that predict.sbatch wrote to}
rows=$(mktemp -d)
trap 'rm -r "$rows"' EXIT
for part in "$folder"/part-*.csv; do
    tail -n +2 "$part" > "$rows/${part##*/}"
done
head -n 1 "$folder/part-00000.csv"
paste -d '\n' "$rows"/part-*.csv | sed '/^$/d'
