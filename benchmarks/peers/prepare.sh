#!/usr/bin/env bash
# Everything that the peers need, under .cache/peers: an environment for each, the rows, the converted models. What is
# there already is left alone; delete a folder to have it made again.
#
#     make base
#     benchmarks/peers/prepare.sh FOLDER_OF_MLQE_PE
#
# ROWS: rows that are written (default 1000). About 9 GB of disk; llama.cpp is compiled, which takes a while.

set -euo pipefail
cd "$(dirname "$0")/../.."

data=${1:?usage: benchmarks/peers/prepare.sh FOLDER_OF_MLQE_PE}
work=.cache/peers
llama=llama-cpp-python==0.3.36
vocabulary=ggml-vocab-nomic-bert-moe.gguf
main=.venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1

source benchmarks/environment.sh

make_models() {  # ENVIRONMENT MODULE ARGUMENT...
  local python=$work/$1/bin/python module=$2
  shift 2
  "$python" -m "benchmarks.peers.$module" "$@"
}

test -d .cache/smollm2-135m-instruct || { echo "no base: run make base first" >&2; exit 1; }
mkdir -p "$work"

environment torch torch==2.13.0 transformers==5.23.0
environment onnxruntime onnxruntime==1.31.1 onnx==1.23.2
environment optimum 'optimum-onnx[onnxruntime]==0.1.0' transformers==4.57.6 torch==2.13.0
environment openvino openvino==2026.4.1 nncf==3.4.0
if [ ! -f "$work/$vocabulary" ]; then
  "$main" -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$work" "$llama"
  tar -xzf "$work"/llama_cpp_python-*.tar.gz -O --wildcards "*/vendor/llama.cpp/models/$vocabulary" \
    >"$work/$vocabulary.part"
  mv "$work/$vocabulary.part" "$work/$vocabulary"
  rm "$work"/llama_cpp_python-*.tar.gz
fi
# built for this processor, but without AMX, with which q8_0 and q4_0 end in a segmentation fault; LLAVA_BUILD is for images
no_amx="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DCMAKE_C_FLAGS='$no_amx' -DCMAKE_CXX_FLAGS='$no_amx'" \
  environment llama --no-cache-dir --no-binary llama-cpp-python "$llama" gguf==0.19.0 safetensors

[ -f "$work/rows.json" ] ||
  "$main" -m benchmarks.peers.rows --file "$data/test20.eten.df.short.tsv" --lp et-en --rows "${ROWS:-1000}"
[ -f "$work/encoder-rows.json" ] || make_models llama make_encoder_rows
make_models optimum make_onnx base
make_models optimum make_onnx encoder
make_models onnxruntime make_int8
make_models openvino make_openvino
make_models llama make_gguf
"$main" -m benchmarks.peers.make_qe_edge
