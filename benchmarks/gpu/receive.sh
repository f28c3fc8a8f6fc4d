#!/usr/bin/env bash
# Takes what carry.sh made, on the machine with the GPU, from the root of the repository, once for every part:
#
#     benchmarks/gpu/receive.sh PART_FOLDER STORE
#
# Parts may come in any order and more than once. After the last one the files are put together, their hashes checked
# and the packages installed into STORE/site; then, and whenever it is called again, it prints the line to run before
# acceptance.sh. PYTHON: interpreter (python3).

set -euo pipefail
usage="usage: benchmarks/gpu/receive.sh PART_FOLDER STORE"
part=$(realpath "${1:?$usage}") store=$(realpath -m "${2:?$usage}")
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}

code=0
"$python" -m benchmarks.gpu.parts take "$part" "$store" || code=$?
[ "$code" = 3 ] && exit 0  # parts are missing, which it has said
[ "$code" = 0 ] || exit "$code"

if [ ! -f "$store/site/.installed" ]; then
  rm -rf "$store/site"
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --disable-pip-version-check \
    --target "$store/site" "$store"/files/wheels/*.whl
  cp -r "$store"/files/metadata/. "$store/site"
  touch "$store/site/.installed"
fi

# ONNX Runtime finds the CUDA libraries that torch brought along
libraries=$("$python" - <<'END'
from importlib.util import find_spec
from pathlib import Path

spec = find_spec("torch")
if spec is not None and spec.origin is not None:
    torch = Path(spec.origin).parent
    print(":".join(map(str, [torch / "lib", *sorted(torch.parent.glob("nvidia/*/lib"))])))
END
)
root=$PWD
echo "export PYTHONPATH=$root:$root/train:$root/export:$store/site LD_LIBRARY_PATH=$libraries\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH} BASE=$store/files/base"
echo "then: benchmarks/gpu/acceptance.sh $store/files/data OUT" >&2
