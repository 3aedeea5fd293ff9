#!/bin/sh
# Make DIR a folder with an aarch64 Python and the libraries that the engines need, for
#     poai bench determinism --aarch64-root DIR
# on a Debian of another architecture with qemu-user-static. Needs no root and leaves the system as it is.
set -eu
[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo "this needs Debian's apt-get and dpkg-deb" >&2; exit 1; }
constraints=$(cd "$(dirname "$0")/.." && pwd)/constraints.txt
mkdir -p "$1" && cd "$1"
mkdir -p apt/lists/partial apt/cache/archives/partial debs wheels
: > apt/status
apt="-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State=$PWD/apt -o Dir::State::status=$PWD/apt/status
  -o Dir::Cache=$PWD/apt/cache -o APT::Sandbox::User=$(id -un) -o Debug::NoLocking=1"
apt-get $apt -qq update
python=$(apt-cache $apt depends python3-minimal | sed -n 's/.*Depends: \(python3\.[0-9]*\)-minimal$/\1/p')
packages="$python $python-minimal lib$python-minimal lib$python-stdlib libc6 libgcc-s1 libstdc++6 libexpat1 zlib1g libffi8
  libssl3 libbz2-1.0 liblzma5 libsqlite3-0 libcrypt1 libuuid1"
(cd debs && for package in $packages; do apt-get $apt -qq download "$package:arm64"; done)
for deb in debs/*.deb; do dpkg-deb -x "$deb" .; done
site=usr/lib/python3/dist-packages
mkdir -p $site
number=$(echo "$python" | sed 's/python//')
# Wheels for every platform tag that this glibc takes; gguf's own dependencies are pure Python but for yaml.
for project in numpy numba llvmlite array-api-compat pycryptodome pyyaml gguf threadpoolctl tqdm platformdirs; do
  pin=$(grep -i "^$project==" "$constraints" || echo "$project")
  python3 -m pip --disable-pip-version-check download -q --no-deps --only-binary=:all: --python-version "$number" \
    --platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux_2_28_aarch64 --dest wheels "$pin"
done
for wheel in wheels/*.whl; do python3 -m zipfile -e "$wheel" $site; done
rm -rf apt debs wheels
echo "made: $PWD"
