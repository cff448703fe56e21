#!/usr/bin/env bash
# Make a network's graphs in edge_restore/models/zoo anew from train/released: every form and precision,
# then INT8 and its checks.
#
#   export/zoo.sh svdn|lmfn FRAMES.npz PAIRS...
#   export/zoo.sh --print svdn|lmfn FRAMES.npz PAIRS...    only print the commands
#
# FRAMES.npz is of `python -m calibration collect`; PAIRS are sets for `python -m calibration check`,
# of which FP16 graphs, slow on a CPU, are checked on the first six images. PYTHON chooses the
# interpreter.
set -euo pipefail

print=no
if [[ ${1:-} == --print ]]; then
  print=yes
  shift
fi
if (($# < 3)) || [[ $1 != svdn && $1 != lmfn ]]; then
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
name=$1 frames=$2 zoo=edge_restore/models/zoo scales=calibration/released/$1.scales.json
sets=()
for pairs in "${@:3}"; do sets+=(--pairs "$pairs"); done

run() {
  echo "python $*"
  if [[ $print == no ]]; then "${PYTHON:-.venv/bin/python}" "$@"; fi
}
graph() { run -m export "$name" --weights "train/released/$name.safetensors" --form camera --out "$zoo/$1.onnx" "${@:2}"; }
by_frames() { run -m calibration quantise "$zoo/$name.onnx" --frames "$frames" --out "$zoo/$name-int8.onnx" --scales-out "$scales"; }
by_scales() { run -m calibration quantise "$zoo/$1.onnx" --scales "$scales" --out "$zoo/$2.onnx"; }
check() { run -m calibration check "$zoo/$1.onnx" --reference "$zoo/$name.onnx" "${sets[@]}" "${@:2}"; }

graph "$name"
if [[ $name == lmfn ]]; then
  graph lmfn-fp16 --precision fp16
  by_frames
  by_scales lmfn-fp16 lmfn-fp16-int8
  check lmfn-int8
  check lmfn-fp16-int8 --images 6
else
  for lowering in GridSample plugin; do
    graph "svdn-${lowering,,}" --deformable "$lowering"
    graph "svdn-${lowering,,}-fp16" --deformable "$lowering" --precision fp16
  done
  by_frames
  by_scales svdn-gridsample-fp16 svdn-gridsample-int8
  by_scales svdn-plugin-fp16 svdn-plugin-int8
  check svdn-int8
  check svdn-gridsample-int8 --images 6
  check svdn-plugin-int8 --twin "$zoo/svdn-gridsample-int8.onnx" --images 6
fi
