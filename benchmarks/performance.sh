#!/usr/bin/env bash
# Every figure of docs/performance.md and the page, on an idle machine: bash benchmarks/performance.sh MLQE_PE docs/performance
# Peers have to be there (benchmarks/peers/prepare.sh). One that fails is named on the page, and the script ends with an error.
# Whatever ends it earlier leaves the figures of the last whole run.
set -euo pipefail
file=$1/test20.eten.df.short.tsv out=${2%/}
export PATH="$PWD/.venv/bin:$PATH"
if [ ! -d .cache/peers/torch ]; then
  echo "no peers to compare with: run \`make peers DATA=$1\` first; \`qe-edge bench\` measures without them" >&2
  exit 1
fi
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
python -m benchmarks.page machine "$new"
qe-edge bench embedded "$file" --lp et-en --json >"$new/bench.json"
python benchmarks/batches.py "$file" --lp et-en --json "$new/batches.json"
python benchmarks/shared_sources.py "$file" --lp et-en --json "$new/shared_sources.json"
python benchmarks/kernels.py "$file" --lp et-en --json "$new/kernels.json"
python benchmarks/invariance.py "$file" --lp et-en --json "$new/invariance.json"
python benchmarks/whole_command.py "$file" --lp et-en --json "$new/whole_command.json"
python -m benchmarks.peers.compare --only 'torch bf16-uncut-sorted' 'qe-edge command' 'qe-edge scorer' \
  -o "$new/peers-1000.json"
failed=0
python -m benchmarks.peers.compare --rows 200 --rounds 3 -o "$new/peers.json" || failed=$?
[ "$failed" -eq 0 ] || [ "$failed" -eq 3 ] || exit "$failed" # 3: a peer failed, the others were compared
python -m benchmarks.peers.figure "$new/peers.json" -o "$new/peers"
python -m benchmarks.page write "$new" "$new/page.md"
mkdir -p "$out"
mv "$new/page.md" "$out.md"
mv "$new"/* "$out"
exit "$failed"
