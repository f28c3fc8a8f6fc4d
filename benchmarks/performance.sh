#!/usr/bin/env bash
# Every figure of docs/performance.md and the page, on an idle machine: bash benchmarks/performance.sh MLQE_PE docs/performance
# Peers are compared if benchmarks/peers/prepare.sh has been run; without them the page is left as it is. One that fails is
# named, the others are drawn, and the script ends with an error.
set -euo pipefail
file=$1/test20.eten.df.short.tsv out=$2
export PATH="$PWD/.venv/bin:$PATH"
mkdir -p "$out"
python -m benchmarks.page machine "$out"
qe-edge bench embedded "$file" --lp et-en --json >"$out/bench.json"
python benchmarks/batches.py "$file" --lp et-en --json "$out/batches.json"
python benchmarks/shared_sources.py "$file" --lp et-en --json "$out/shared_sources.json"
python benchmarks/kernels.py "$file" --lp et-en --json "$out/kernels.json"
python benchmarks/invariance.py "$file" --lp et-en --json "$out/invariance.json"
python benchmarks/whole_command.py "$file" --lp et-en --json "$out/whole_command.json"
if [ -d .cache/peers/torch ]; then
  python -m benchmarks.peers.compare --only 'torch bf16-uncut-sorted' 'qe-edge command' 'qe-edge scorer' \
    -o "$out/peers-1000.json" | tee "$out/peers-1000.md"
  failed=0
  python -m benchmarks.peers.compare --rows 200 --rounds 3 -o "$out/peers.json" | tee "$out/peers.md" || failed=$?
  python -m benchmarks.peers.figure "$out/peers.json" -o "$out/peers"
  python -m benchmarks.page write "$out" "$out.md"
  exit "$failed"
else
  echo "no peers, so $out.md is not written: run benchmarks/peers/prepare.sh $1 first" >&2
fi
