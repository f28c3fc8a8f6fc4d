#!/usr/bin/env bash
# Everything that acceptance.sh needs on a machine without network, in parts of at most 55 MiB that can be taken there
# one at a time. Run it on a machine with network and the project's environment:
#
#     make base
#     benchmarks/gpu/carry.sh FOLDER DATA
#
# FOLDER: where FOLDER/files and FOLDER/part-1, part-2, ... are written (1.6 GB); DATA: folder of MLQE-PE. The other
# machine has Python 3.12, torch with CUDA, and the CUDA libraries that come with torch; all other packages are carried,
# in the versions of constraints.txt. What has been downloaded already is kept.

set -euo pipefail
usage="usage: benchmarks/gpu/carry.sh FOLDER DATA"
folder=$(realpath -m "${1:?$usage}") data=$(realpath "${2:?$usage}")
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
base=.cache/smollm2-135m-instruct
train_rows=1200 dev_rows=200
files=$folder/files
export PIP_DISABLE_PIP_VERSION_CHECK=1

packages=(
  onnxruntime-gpu bitsandbytes peft transformers accelerate optimum
  tokenizers safetensors huggingface_hub hf-xet regex PyYAML psutil tqdm
  onnx onnx-ir onnxscript ml_dtypes protobuf flatbuffers sympy mpmath numpy scipy
  tensorboard tensorboard-data-server absl-py grpcio Markdown Werkzeug MarkupSafe pillow setuptools
  typer click shellingham rich markdown-it-py mdurl Pygments annotated-doc
  pydantic pydantic_core annotated-types typing-inspection typing_extensions
  langcodes language_data marisa-trie py3langid filelock fsspec packaging tomli_w
  httpx2 httpcore2 anyio idna truststore h11 certifi
)
platforms=()
for number in 17 24 26 27 28 31 34 35; do platforms+=(--platform "manylinux_2_${number}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)

test -f "$base/config.json" || { echo "no base: run make base first" >&2; exit 1; }
mkdir -p "$files/wheels" "$files/data" "$files/metadata"
"$python" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp --python-version 3.12 \
  "${platforms[@]}" --constraint constraints.txt --dest "$files/wheels" "${packages[@]}"

# the version of qe-edge, which is run from the checkout and not installed
"$python" -c 'import sys; from hatchling.build import prepare_metadata_for_build_wheel as make; make(sys.argv[1])' \
  "$files/metadata"

cp "$data"/test20.*.df.short.tsv "$files/data"
for table in "$data"/train.*.df.short.tsv; do head -n $((train_rows + 1)) "$table" >"$files/data/$(basename "$table")"; done
for table in "$data"/dev.*.df.short.tsv; do head -n $((dev_rows + 1)) "$table" >"$files/data/$(basename "$table")"; done

[ -f "$files/base/config.json" ] || "$python" - "$base" "$files/base" <<'END'
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

base, target = sys.argv[1:]
AutoTokenizer.from_pretrained(base).save_pretrained(target)
AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(target)
END

rm -rf "$folder"/part-*
"$python" -m benchmarks.gpu.parts pack "$files" "$folder"
