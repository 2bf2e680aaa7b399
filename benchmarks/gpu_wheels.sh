#!/bin/sh
# Gathers into a folder what the lab's part and the peer of benchmarks/gpu need beside PyTorch and Lightning,
# for a machine with a card from which nothing can be fetched:
#
#     sh benchmarks/gpu_wheels.sh [FOLDER]           # wheels by default, for Python 3.12; VERSION=3.13 for another
#
# There, benchmarks/gpu.sh installs them. Hydra's parser comes as source alone, of pure Python: it is built here.
set -eu
python=${PYTHON:-python3}
version=${VERSION:-3.12}
folder=${1:-wheels}
mkdir -p "$folder"
platforms=
for glibc in 28 27 17; do platforms="$platforms --platform manylinux_2_${glibc}_x86_64"; done
# shellcheck disable=SC2086 # several options
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
    $platforms --platform manylinux2014_x86_64 --dest "$folder" \
    'hydra-core>=1.3.2,<1.4' 'omegaconf>=2.2,<2.4' xrfm
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$folder" 'antlr4-python3-runtime==4.9.*'
# what these ask for: all but the three above is to be there, with PyTorch
for wheel in "$folder"/*.whl; do
    unzip -p "$wheel" '*/METADATA' | sed -n 's/^Requires-Dist: //p' | grep -v 'extra ==' | sed "s|^|$(basename "$wheel"): |"
done
