#!/usr/bin/env bash
# Make an environment in which lmms-eval drives graphs of modelgraft:  environment.sh FOLDER
#
# PYTHON   the interpreter to start from (python3)
# TORCH    what to install as torch; unset: the CPU build of the version in constraints.txt on Linux, the usual build elsewhere
#
# It takes 2 GB and a few minutes, and does nothing outside of FOLDER. What exists there already is used again.
set -euo pipefail

folder=${1:?"which folder? environment.sh FOLDER"}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$here/../../.." && pwd)
lmms_eval=lmms-eval==0.7.3

[ -x "$folder/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder"
install() { "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$folder/constraints.txt" "$@"; }

# The project's own versions, but for three that lmms-eval takes in older ones: filelock, protobuf (by wandb) and av.
grep -v -E '^(filelock|protobuf|av)==' "$project/constraints.txt" > "$folder/constraints.txt"

torch=${TORCH:-$(grep '^torch==' "$project/constraints.txt")}
if [ -z "${TORCH:-}" ] && [ "$(uname -s)" = Linux ]; then
    torch="$torch+cpu" # the usual build for Linux brings several gigabytes of CUDA
fi
install --only-binary :all: "$torch" || {
    echo "$torch cannot be had: let pip look where CPU builds of torch lie (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS)," >&2
    echo "or say which build to take: TORCH='$(grep '^torch==' "$project/constraints.txt")' $0 $folder" >&2
    exit 1
}
install --requirement "$here/requirements.txt"
install --no-deps "$lmms_eval" # whose 52 requirements are those of all its tasks and models
install --editable "$project[audio,gguf,parquet]"
install --no-deps --editable "$here"

"$folder/bin/python" - <<'CHECK'
from importlib.metadata import entry_points

names = [entry.name for entry in entry_points(group="lmms_eval.models")]
assert "modelgraft" in names, names
CHECK
echo "$folder is ready: $folder/bin/python -m lmms_eval --model modelgraft --model_args graph=llava,checkpoint=FOLDER --tasks TASK"
