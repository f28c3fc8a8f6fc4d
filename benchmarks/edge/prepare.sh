#!/usr/bin/env bash
# The environments of the runtimes, under .cache/edge or where WORK says; what is there already is left alone.
#
#     benchmarks/edge/prepare.sh
#
# The one for Arm is a folder with Debian 12's Python for arm64 and the wheels for aarch64, to be run by qemu-aarch64
# (Debian's package qemu-user). Its packages are only unpacked there.

set -euo pipefail
cd "$(dirname "$0")/../.."

work=${WORK:-.cache/edge}
main=.venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1
mkdir -p "$work"
work=$(cd "$work" && pwd)

source benchmarks/environment.sh

environment openvino openvino==2026.4.1 numpy==2.4.6
environment ort-openvino onnxruntime-openvino==1.24.1 numpy==2.4.6

arm=$work/arm
[ -f "$arm/.installed" ] && exit
apt=$work/apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs" "$apt/wheels" "$arm/site"
: >"$apt/status"
options=(
  -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt/cache"
  -o Dir::State::status="$apt/status" -o APT::Sandbox::User=root
)
apt-get -qq "${options[@]}" update
(cd "$apt/debs" && apt-get -qq "${options[@]}" download python3.11-minimal libpython3.11-minimal \
  libpython3.11-stdlib libc6 zlib1g libexpat1 libssl3 libstdc++6 libgcc-s1 libffi8 libbz2-1.0 liblzma5 libuuid1)
for package in "$apt"/debs/*.deb; do
  dpkg -x "$package" "$arm"
done
for wheel in onnxruntime==1.31.1 numpy==2.4.6; do
  "$main" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --dest "$apt/wheels" \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 "$wheel"
done
for wheel in "$apt"/wheels/*.whl; do
  "$main" -m zipfile -e "$wheel" "$arm/site"
done

# ONNX Runtime reads what the processor is from these files, and ends with a segmentation fault on those of an x86
# machine. qemu takes a file from the folder, where there is one. A Neoverse N1 with two cores:
mkdir -p "$arm/proc" "$arm/sys/devices/system/cpu"
for core in 0 1; do
  cat <<EOF
processor	: $core
BogoMIPS	: 50.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x3
CPU part	: 0xd0c
CPU revision	: 1

EOF
done >"$arm/proc/cpuinfo"
echo 0-1 | tee "$arm/sys/devices/system/cpu/possible" >"$arm/sys/devices/system/cpu/present"
touch "$arm/.installed"
