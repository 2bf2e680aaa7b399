#!/bin/sh
# Tests and benchmark of a machine with a card, in one call of at most ten minutes, from the root of a checkout:
#
#     sh benchmarks/gpu.sh [FOLDER]          # gpu-results by default: tests.log, gpu.log, gpu.json
#
# Wheels of benchmarks/gpu_wheels.sh are taken from the folder wheels where it is there, and installed aside.
set -u
out=${1:-gpu-results}
mkdir -p "$out"
export PYTHONUNBUFFERED=1
if [ -d wheels ]; then
    site=$(mktemp -d)
    python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$site" wheels/*.whl
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
python3 -c 'import benchmarks.gpu' || exit  # before anything else takes time
# what libraries warn of on a card is told here, and is no error
timeout -k 5 90 python3 -m pytest -p no:cacheprovider -o filterwarnings=default -q -n 6 -m 'not long' tests/gpu \
    > "$out/tests.log" 2>&1
tail -n 25 "$out/tests.log"
# parts are cut at their seconds; what hangs inside a library is ended a little later, rows are written by then
timeout -k 5 465 python3 -m benchmarks.gpu --minutes 7.5 --out "$out/gpu.json" > "$out/gpu.log" 2>&1
status=$?
tail -n 90 "$out/gpu.log"
exit $status
