#!/usr/bin/env bash
# One run on a machine with an NVIDIA GPU, at most 8 minutes, no network: builds for that GPU,
# compares bits with the CPU, measures, looks for memory errors and races. Prints its tables and
# writes them to $OUT (default bench/results) as gpu.json, gpu_steps.json, gpu_reads.json,
# gpu_micro.json and gpu.log, in the order of what is missed most if the time runs out; the
# sanitizers' logs beside them. Exit code 1: something differs, failed or found no time; see gpu.log.
# Needs nvcc, a C++ compiler and a python3 that has torch with CUDA, pybind11, scikit-build-core,
# cmake and ninja. PYTHON chooses another interpreter, BUDGET_S the seconds.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
OUT=$(realpath -m "${OUT:-bench/results}")
mkdir -p "$OUT"
python=${PYTHON:-python3}
end=$((SECONDS + ${BUDGET_S:-470}))
failed=0
summary=()

# Runs a command with what is left of the time, at most the seconds given.
within() { # name, seconds, command...
  local name=$1 most=$2 left=$((end - SECONDS)) start=$SECONDS code
  shift 2
  printf '\n== %s (%d s left)\n' "$name" "$left" >&2 # a step's output may be a file
  if ((left > 5)); then
    timeout -k 5 $((left < most ? left : most)) "$@"
    code=$?
  else
    code=124
  fi
  case $code in
    0) summary+=("$name: passed, $((SECONDS - start)) s") ;;
    124 | 137) summary+=("$name: NOT FINISHED, no time after $((SECONDS - start)) s") ;;
    *) summary+=("$name: FAILED, exit code $code, $((SECONDS - start)) s") ;;
  esac
  ((code == 0)) || { echo "${summary[-1]}" >&2; failed=1; }
  return $code
}

sanitize() { # tool
  # Every tensor memory of its own: in torch's pool an overrun would meet other tensors unseen.
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 within "$1" 60 compute-sanitizer --tool "$1" \
    --kernel-regex kns=pulseline --report-api-errors no --error-exitcode 9 \
    "$python" bench/gpu.py --out "$OUT" equality --small >"$OUT/gpu_$1.log" 2>&1
  tail -3 "$OUT/gpu_$1.log"
}

everything() {
  export PATH=$PATH:/usr/local/cuda/bin PYTHONUNBUFFERED=1
  local arch home
  arch=$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())' 2>/dev/null) ||
    { echo "$python has no torch that sees a GPU; choose another one with PYTHON"; exit 1; }
  home=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$home'" EXIT
  # Nothing of an earlier run may pass for this one's.
  rm -f "$OUT"/gpu{,_steps,_reads,_micro}.json "$OUT"/gpu_{memcheck,racecheck}.log
  export SKBUILD_CMAKE_DEFINE="PULSELINE_CUDA=ON;PULSELINE_CUDA_ARCHS=$arch"
  export PYTHONPATH=$home${PYTHONPATH:+:$PYTHONPATH}
  within build 150 "$python" -m pip install --quiet --no-build-isolation --no-index --no-deps \
    --target "$home" . || exit 1

  within equality 90 "$python" bench/gpu.py --out "$OUT" equality
  within behaviour 40 "$python" bench/gpu.py --out "$OUT" behaviour
  within update 110 "$python" bench/gpu.py --out "$OUT" update
  within steps 100 "$python" bench/gpu_reads.py steps --json "$OUT/gpu_steps.json"
  if within "build micro" 40 \
    nvcc -std=c++17 "-arch=sm_$arch" -Icsrc -o "$home/gpu_micro" bench/gpu_micro.cu; then
    within micro 20 "$home/gpu_micro" >"$OUT/gpu_micro.json" && cat "$OUT/gpu_micro.json"
  fi
  within reads 110 "$python" bench/gpu_reads.py reads products --seconds 0.15 \
    --json "$OUT/gpu_reads.json"
  if command -v compute-sanitizer >/dev/null; then
    sanitize memcheck
    sanitize racecheck
  else
    summary+=("memcheck and racecheck: NOT RUN, no compute-sanitizer")
  fi
  printf '\n'
  printf '%s\n' "${summary[@]}"
  exit $failed
}

everything 2>&1 | tee "$OUT/gpu.log"
exit "${PIPESTATUS[0]}"
