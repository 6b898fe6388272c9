#!/usr/bin/env bash
# One run on a machine with an NVIDIA GPU, at most 8 minutes, no network: builds for that GPU,
# compares bits with the CPU, looks for memory errors and races, measures. Prints one table and
# writes gpu.json, gpu_reads.json, gpu_micro.json and logs to $OUT (default bench/results).
# Needs nvcc, a C++ compiler and a python3 that has torch with CUDA, pybind11, scikit-build-core,
# cmake and ninja. PYTHON chooses another interpreter, BUDGET_S the seconds.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
OUT=$(realpath -m "${OUT:-bench/results}")
mkdir -p "$OUT"
python=${PYTHON:-python3}
end=$((SECONDS + ${BUDGET_S:-470}))
failed=0

# Runs a command with what is left of the time, at most the seconds given.
within() { # name, seconds, command...
  local name=$1 most=$2 left=$((end - SECONDS)) code
  shift 2
  printf '\n== %s (%d s left)\n' "$name" "$left" >&2 # a step's output may be a file
  ((left > 5)) || { echo "no time left" >&2; failed=1; return 1; }
  timeout -k 5 $((left < most ? left : most)) "$@"
  code=$?
  ((code == 0)) || { echo "$name: exit code $code" >&2; failed=1; }
  return $code
}

export PATH=$PATH:/usr/local/cuda/bin PYTHONUNBUFFERED=1
arch=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())') || exit 1
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
export SKBUILD_CMAKE_DEFINE="PULSELINE_CUDA=ON;PULSELINE_CUDA_ARCHS=$arch" PYTHONPATH=$home${PYTHONPATH:+:$PYTHONPATH}
within build 150 "$python" -m pip install --quiet --no-build-isolation --no-index --no-deps \
  --target "$home" . || exit 1

within equality 120 "$python" bench/gpu.py --out "$OUT" equality
within behaviour 60 "$python" bench/gpu.py --out "$OUT" behaviour

if command -v compute-sanitizer >/dev/null; then
  # Every tensor memory of its own: in torch's pool an overrun would meet other tensors unseen.
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1
  for tool in memcheck racecheck; do
    within "$tool" 90 compute-sanitizer --tool "$tool" --kernel-regex kns=pulseline \
      --report-api-errors no --error-exitcode 9 "$python" bench/gpu.py --out "$OUT" equality --small \
      >"$OUT/gpu_$tool.log" 2>&1
    tail -3 "$OUT/gpu_$tool.log"
  done
  unset PYTORCH_NO_CUDA_MEMORY_CACHING
else
  echo "no compute-sanitizer: memory errors and races are not looked for"
fi

if within micro 40 nvcc -std=c++17 "-arch=sm_$arch" -Icsrc -o "$home/gpu_micro" bench/gpu_micro.cu; then
  within micro 30 "$home/gpu_micro" >"$OUT/gpu_micro.json" && cat "$OUT/gpu_micro.json"
fi

within update 150 "$python" bench/gpu.py --out "$OUT" update
within reads 150 "$python" bench/gpu_reads.py --seconds 0.3 --json "$OUT/gpu_reads.json"
exit $failed
