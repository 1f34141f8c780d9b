#!/bin/sh
# The course's experiment: ResNet18 for 10 epochs and ResNet50 for 5, each from scratch and from
# ImageNet weights, and the report that compares the four; then its other experiment, more of
# grades 1-4.
#
#   DATA=folder sh examples/lab.sh
#
# DATA       train_img.csv train_label.csv test_img.csv test_label.csv and the images, anywhere below
# SIZE       pixels, 512            EPOCHS   of every run, for a small machine; 10 and 5
# WEIGHTS18  WEIGHTS50              local ImageNet weights (.pth, .safetensors) where none can be
#                                   fetched; without them the pretrained runs are left out, and said
# VAL        test: as in the course, whose split has no validation part, all of train is trained on
#            and the epoch is picked on the test set. dr says that such figures are optimistic;
#            VAL=0.15 takes validation from train, by patient
# DR_RUNS    where the runs go, runs/lab. A script that was stopped goes on when it is started
#            again: finished runs are kept, a cut one is resumed from where it was saved last
#
# A run that fails stops neither the others nor the report; then the exit code is 1.
set -eu
case ${DATA:-} in "" | /*) ;; *) DATA=$PWD/$DATA ;; esac # as whoever calls it means it
cd "$(dirname "$0")/.."
[ -n "${DATA:-}" ] || { echo "DATA=folder sh examples/lab.sh   (the course's four tables and its images)" >&2; exit 2; }
. examples/install.sh
DR_RUNS=${DR_RUNS:-runs/lab}
export DR_RUNS
left_out="" failed=""

# train NAME EPOCHS OPTION...: the course's hyperparameters, and no augmentation unless named last.
train() {
    name=$1 epochs=${EPOCHS:-$2}
    shift 2
    if [ -f "$DR_RUNS/$name/summary.json" ]; then
        echo "$name: finished already" >&2
    elif [ -f "$DR_RUNS/$name/config.json" ]; then
        dr train --resume "$DR_RUNS/$name" > /dev/null
    else
        printf '\n%s\n' "$name" >&2
        dr train "$DATA" --name "$name" --epochs "$epochs" --size "${SIZE:-512}" \
            --val "${VAL:-test}" --loss ce --optimizer sgd --momentum 0.9 --no-nesterov --lr 1e-3 \
            --weight-decay 5e-4 --batch-size 4 --schedule constant --warmup 0 --augment none \
            --illumination kept --decision argmax "$@" > /dev/null
    fi || {
        ended=$?
        [ "$ended" -lt 128 ] || exit "$ended" # interrupted: nothing goes on
        failed="$failed $name"
        echo "$name failed (exit code $ended); the others go on" >&2
    }
}

# pretrained ARCH EPOCHS WEIGHTS: from local weights, else torchvision's, else not at all. Asked
# beforehand, so that hours of preparation do not end in a download that fails.
pretrained() {
    if [ -n "$3" ]; then
        train "$1-pretrained" "$2" --arch "$1" --weights "$3"
    elif echo "looking for ImageNet weights of $1" >&2 &&
        "$dr_python" -c "from dr_cli import build_resnet; build_resnet('$1', pretrained=True)" \
            2> /dev/null; then
        train "$1-pretrained" "$2" --arch "$1" --pretrained
    else
        left_out="$left_out $1-pretrained"
    fi
}

train resnet18 10 --arch resnet18
pretrained resnet18 10 "${WEIGHTS18:-}"
train resnet50 5 --arch resnet50
pretrained resnet50 5 "${WEIGHTS50:-}"

# "Grades 1-4 duplicated with flips". No option copies images; the nearest draws every grade
# equally often and mirrors each picture at random, left-right and upside down.
train resnet18-more-of-rare-grades 10 --arch resnet18 --balance oversample --augment flip

if [ -n "$left_out" ]; then
    echo "left out:$left_out: ImageNet weights can neither be found nor fetched here;" \
        "WEIGHTS18=FILE WEIGHTS50=FILE name local ones" >&2
fi
ended=0
dr report "$DR_RUNS" || ended=$?
if [ -n "$failed" ]; then
    echo "failed:$failed; what to do stands above, then start this script again" >&2
    exit 1
fi
exit "$ended"
