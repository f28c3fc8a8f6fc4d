#!/usr/bin/env bash
# Every target of qe-edge on a GPU, in one command, from the root of the repository:
#
#     benchmarks/gpu/acceptance.sh DATA OUT
#
# DATA: folder of MLQE-PE; OUT: where OUT/STEP.json, STEP.log and table.md are written. Steps run in the order of their
# importance, each within a time limit; one that fails does not stop the others. The same command goes on after what is
# finished. Exit code 1 when a target is missed. Variables:
#
#     BASE     folder of the base (.cache/smollm2-135m-instruct)
#     WORK     decoders, runs and bundles that are made (.cache/gpu): up to 60 GB
#     MINUTES  for all steps together (25)
#     PYTHON   interpreter (python3)
#     DEVICE   cuda, or cpu for a rehearsal, which needs TINY=1 to end in time
#     TINY     1: a tiny random decoder for every shape, and few rows

set -uo pipefail
usage="usage: benchmarks/gpu/acceptance.sh DATA OUT"
data=$(realpath "${1:?$usage}") out=$(realpath -m "${2:?$usage}")
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
deadline=$((SECONDS + 60 * ${MINUTES:-25}))
common=(--data "$data" --device "${DEVICE:-cuda}")
common+=(--base "${BASE:-.cache/smollm2-135m-instruct}" --work "${WORK:-.cache/gpu}")
[ -n "${TINY:-}" ] && common+=(--tiny)
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true
mkdir -p "$out" || exit 1

step() {  # NAME SECONDS MODULE ARGUMENT...
  local name=$1 limit=$2 module=$3 left=$((deadline - SECONDS))
  shift 3
  if [ "$(cat "$out/$name.exit" 2>/dev/null)" = 0 ]; then
    echo "$name: done before" >&2
    return
  fi
  if [ "$left" -lt 10 ]; then
    echo "$name: no time left" >&2
    return
  fi
  [ "$limit" -gt "$left" ] && limit=$left
  local began=$SECONDS code
  timeout --kill-after=10 "$limit" "$python" -m "benchmarks.gpu.$module" "$@" "${common[@]}" -o "$out/$name.json" \
    >/dev/null 2>"$out/$name.log"
  code=$?
  echo "$code" >"$out/$name.exit"
  echo "$name: exit code $code after $((SECONDS - began)) s" >&2
}

step peak 60 peak
step decoders 120 decoders tiny 1.5b
step bundles-base 300 bundles base
step scoring 360 scoring
step bundles-1.5b 300 bundles 1.5b
step scoring-1.5b 150 scoring --shape 1.5b --only qe-edge-fp16 qe-edge-int4 transformers
step placement 120 placement
step bundles-tiny 120 bundles tiny
step parity 180 parity
step training 300 training
step memory-scoring 180 memory scoring --shapes base 1.5b
step decoders-large 180 decoders 3b 8b
step memory-training 300 memory training
step bundles-3b 300 bundles 3b
step bundles-8b 600 bundles 8b --precisions int4
step memory-scoring-large 200 memory scoring --shapes 3b 8b

"$python" -m benchmarks.gpu.table "$out" >"$out/table.md.part"
met=$?
mv "$out/table.md.part" "$out/table.md"
cat "$out/table.md"
exit "$met"
