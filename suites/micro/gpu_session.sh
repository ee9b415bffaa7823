#!/usr/bin/env bash
# Build, check and time the CUDA kernels on a machine with a GPU that has torch, and nothing of this project installed.
#
#   OUT=results BUDGET=560 suites/micro/gpu_session.sh [check|bench|decode|all]
#
# Run in a checkout. Everything is written under $OUT as it is known, and the whole ends within $BUDGET seconds:
#   build.log machine.txt check.json check.log results.json bench.log table.md; with decode: decode.json decode.log
# all is check and bench. decode (suites/micro/decode_cuda.py: tokens per second of whole models) needs transformers too.
# Found where they are, and done without where they are not:
#   .peers/*.whl                       peers as wheels (humming_kernels, gemlite), installed without their dependencies
#   .peers/_C_stable_libtorch.abi3.so  vLLM's kernels, or a zip with that file; or AWQBENCH_VLLM_SO
#   .peers/awqbench_cuda.so            our kernels, built elsewhere from these sources; or AWQBENCH_CUDA_KERNELS
# PEERS names another folder; CHECK_SHARE the percentage of the time that checking may take when both are done;
# CHECK_ARGS, BENCH_ARGS and DECODE_ARGS are passed on, e.g. BENCH_ARGS="--shapes llama3-8b --batches 1,16".
set -uo pipefail

what=${1:-all}
out=${OUT:-runs/gpu}
budget=${BUDGET:-560}
peers=$(realpath -m "${PEERS:-.peers}")
python=${PYTHON:-python3}
site=$(mktemp -d)
begin=$SECONDS
status=0

left() { echo $((budget - (SECONDS - begin))); }
say() { printf '\n== %s (%s s left)\n' "$1" "$(left)"; }

case $what in
check | bench | decode | all) ;;
*) echo "unknown step '$what' (allowed: check, bench, decode, all)" >&2; exit 2 ;;
esac
mkdir -p "$out"
trap 'rm -rf "$site"' EXIT

# The package alone goes on the path: the checkout holds a folder `kernels`, which transformers would import.
ln -s "$(realpath awqbench)" "$site/awqbench"
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export AWQBENCH_CACHE="${AWQBENCH_CACHE:-$site/cache}"
awqbench() { "$python" -P -m awqbench "$@"; }

{
    shopt -s nullglob
    wheels=("$peers"/*.whl)
    if ((${#wheels[@]})); then
        "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "${wheels[@]}"
    fi
    for packed in "$peers"/*.zip; do "$python" -m zipfile -e "$packed" "$site/vllm-library"; done
    if [[ -z ${AWQBENCH_VLLM_SO:-} ]]; then
        for file in "$peers"/_C_stable_libtorch.abi3.so "$site"/vllm-library/{,*/,*/*/}_C_stable_libtorch.abi3.so; do
            [[ -f $file ]] && export AWQBENCH_VLLM_SO=$file
        done
    fi
    if [[ -z ${AWQBENCH_CUDA_KERNELS:-} && -f $peers/awqbench_cuda.so ]]; then
        export AWQBENCH_CUDA_KERNELS=$peers/awqbench_cuda.so
    fi
    echo "vLLM's library: ${AWQBENCH_VLLM_SO:-none}; our kernels: ${AWQBENCH_CUDA_KERNELS:-built here}"
    if [[ -z ${AWQBENCH_CUDA_KERNELS:-} ]]; then
        "$python" -P -m awqbench.ops.cuda_build --out "$site/awqbench_cuda.so" &&
            export AWQBENCH_CUDA_KERNELS=$site/awqbench_cuda.so
    fi
    ((${#wheels[@]})) && printf '%s\n' "${wheels[@]##*/}"
} >"$out/build.log" 2>&1
tail -n 3 "$out/build.log"
if [[ -z ${AWQBENCH_CUDA_KERNELS:-} ]]; then
    echo "the kernels could not be built: $(tail -n 1 "$out/build.log")" >&2
    exit 2
fi
nvidia-smi -q >"$out/machine.txt" 2>&1

if [[ $what == check || $what == all ]]; then
    say "check"
    seconds=$(left)
    [[ $what == all ]] && seconds=$((seconds * ${CHECK_SHARE:-40} / 100))
    # shellcheck disable=SC2086  # several arguments in one variable
    awqbench kernels check --budget "$seconds" --out "$out/check.json" ${CHECK_ARGS:-} >"$out/check.log" 2>&1 || status=$?
    grep -E '^(FAIL|ERROR|FAILING)' "$out/check.log" | head -n 40
    tail -n 3 "$out/check.log"
fi
if [[ $what == bench || $what == all ]] && [[ $(left) -gt 40 ]]; then
    say "bench"
    # The last problem begun before the end of its budget still has to end.
    # shellcheck disable=SC2086
    awqbench kernels bench --budget $(($(left) - 25)) --out "$out/results.json" ${BENCH_ARGS:-} 2>&1 | tee "$out/bench.log"
    code=${PIPESTATUS[0]}
    ((code > status)) && status=$code
    mkdir -p "$site/results" && cp "$out/results.json" "$site/results/" 2>/dev/null
    awqbench kernels table --full --results "$site/results" >"$out/table.md" 2>>"$out/bench.log"
fi
if [[ $what == decode ]]; then
    say "decode"
    # shellcheck disable=SC2086
    HF_HUB_OFFLINE=1 "$python" -P suites/micro/decode_cuda.py --budget $(($(left) - 15)) --json "$out/decode.json" \
        ${DECODE_ARGS:-} 2>&1 | tee "$out/decode.log"
    status=${PIPESTATUS[0]}
fi
say "done, status $status"
exit "$status"
