#!/usr/bin/env bash
# The experiments of docs/methods.md: bash recipes/methods/run.sh SETS OUT. SETS holds mlqe-pe/, ntrex/ and monolingual/.
# Finished parts are kept, an interrupted training continues.
set -euo pipefail
sets=$1 out=$2
here=recipes/methods
base=.cache/smollm2-135m-instruct
export PATH="$PWD/.venv/bin:$PATH"

test -f "$out/probe/probe.json" || qe-edge probe $here/probe.toml -o "$out/probe" --data "$sets" --rows 120 --dev-rows 150
test -f "$out/allocate/allocation.json" || qe-edge allocate $base -o "$out/allocate" --blocks 20 --rank 20

for name in strategies joint allocation beta grid upper; do
  qe-edge sweep $here/$name.toml -o "$out/$name" --data "$sets"
done

# which layer of a multilingual decoder: frozen, and trained
mkdir -p "$out/layers"
sed '/^\[sweep/,$d' $here/layers.toml >"$out/layers/probe.toml"
test -f "$out/layers/probe/probe.json" ||
  qe-edge probe "$out/layers/probe.toml" -o "$out/layers/probe" --data "$sets" --rows 200 --dev-rows 200
qe-edge sweep $here/layers.toml -o "$out/layers/sweep" --data "$sets"

for name in align align-four; do
  test -f "$out/$name/run.json" || qe-edge align $here/$name.toml -o "$out/$name" --data "$sets"
done
merge() { test -f "$3/run.json" || qe-edge merge-adapters "$1" "$2" -o "$3" --data "$sets" --grid "$4"; }
merge "$out/strategies/runs/single-TL-11_seed-1" "$out/align" "$out/merged-1" 0,.1,.2,.3,.4,.5,.6,.7,.8,.9,1
for seed in 1 2 3; do
  merge "$out/joint/runs/task-alone_seed-$seed" "$out/align-four" "$out/merged-four-$seed" 1:0,1:0.5,1:1,0.75
done
retrieval() {
  test -f "$1/retrieval.txt" && return
  python benchmarks/retrieval_of_runs.py --data "$sets" "${@:2}" >"$1/retrieval.part"
  mv "$1/retrieval.part" "$1/retrieval.txt"
}
task=$out/strategies/runs
retrieval "$out/strategies" "$task"/aligned_seed-* "$task"/single-TL-11_seed-*
task=$out/joint/runs
retrieval "$out/joint" "$task"/aligned_seed-* "$task"/task-alone_seed-* "$out/align-four" "$out"/merged-four-*

# the same scores from the graph, with real weights: every strategy, and experts
parity() { test -f "$out/parity/$1/bundle.json" || qe-edge export "$2" -o "$out/parity/$1" -p w8a8 --data "$sets"; }
parity dynamic "$out/strategies/runs/dynamic_seed-1"
parity multi "$out/strategies/runs/multi_seed-1"
parity experts "$out/allocation/runs/experts-by-alpha_seed-1"

for task in sentiment-tweets sentiment-film readability; do
  recipe=recipes/monolingual/$task.toml folder=$out/$task data=$sets/monolingual
  test -f "$folder/probe/probe.json" || qe-edge probe $recipe -o "$folder/probe" --data "$data" --rows 600 --dev-rows 300
  test -f "$folder/run/run.json" || qe-edge train $recipe -o "$folder/run" --data "$data"
  precision=w8a8
  [ "$task" = readability ] && precision=fp32  # eight bits lose more than the gate allows (docs/methods.md)
  test -f "$folder/bundle/bundle.json" || qe-edge export "$folder/run" -o "$folder/bundle" -p $precision
  qe-edge score "$data/$task.test.tsv" -m "$folder/bundle" -o "$folder/scored.tsv"
  python benchmarks/text_baselines.py --train "$data/$task.train.tsv" --scored "$folder/scored.tsv" -o "$folder/compared.tsv"
  qe-edge eval "$folder/compared.tsv" --gold score --score qe_score --score length --score mean | tee "$folder/eval.txt"
done

# what docs/methods.md shows
figures=docs/methods
mkdir -p $figures
cp "$out/probe/probe.csv" "$out/probe/probe.svg" "$out/probe/directions.svg" $figures/
cp "$out/allocate/allocation.csv" $figures/allocate.csv
cp "$out/layers/probe/probe.csv" $figures/layers-probe.csv
cp "$out/layers/probe/probe.svg" $figures/layers-probe.svg
cp "$out/layers/sweep/results.csv" $figures/layers-runs.csv
cp "$out/layers/sweep/summary.csv" $figures/layers.csv
cp "$out/layers/sweep/summary.svg" $figures/layers.svg
cp "$out/strategies/retrieval.txt" $figures/strategies-retrieval.txt
cp "$out/joint/retrieval.txt" $figures/joint-retrieval.txt
for name in strategies joint allocation beta grid; do
  cp "$out/$name/results.csv" "$figures/$name-runs.csv"
  cp "$out/$name/summary.csv" "$figures/$name.csv"
  cp "$out/$name/summary.svg" "$figures/$name.svg"
done
for task in sentiment-tweets sentiment-film readability; do
  cp "$out/$task/probe/probe.csv" "$figures/$task-probe.csv"
  cp "$out/$task/eval.txt" "$figures/$task-eval.txt"
done
