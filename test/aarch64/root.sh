# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Python for aarch64 with its packages, and an emulator that runs it on x86_64, all in .aarch64/.
# APT downloads with a configuration of its own and dpkg-deb unpacks: nothing is installed on this
# machine, and nothing needs the rights of root.
#
# run.sh reads this file and gives step, say, root, state and insightface.

aarch64=$root/.aarch64
arm64_packages=(python3 libstdc++6)
arm64_wheels=(
  numpy opencv-python-headless onnxruntime matplotlib scipy tqdm pyyaml
  "rosbags>=0.11" rosbags-image "pytest>=7,<9" "hypothesis>=6,<7" onnx requests scikit-image
)

make_aarch64_root() {
  local state=$aarch64/setup
  exec 9<"$root/run.sh" # one set-up at a time
  flock 9
  step root "Emulator and Python for aarch64" "$aarch64 ${arm64_packages[*]}" install_arm64_root
  step wheels "Python packages for aarch64" "${arm64_wheels[*]} $insightface" install_arm64_wheels
  exec 9<&-
}

install_arm64_root() {
  local codename package site
  for package in apt-get dpkg-deb; do
    command -v "$package" || { needs_debian "$package is missing"; return 1; }
  done
  codename=$(. /etc/os-release && echo "$ID-$VERSION_CODENAME")
  [[ $codename == debian-* ]] || { needs_debian "this is $codename"; return 1; }
  codename=${codename#debian-}
  site=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' |
    awk -v release="$codename" '$1 == release && $2 == "main" { print $3; exit }')
  [[ $site ]] || { say "APT has no source of $codename main: see /etc/apt."; return 1; }

  rm -rf "$aarch64"/{apt,qemu,root} "$state/wheels.done"
  mkdir -p "$aarch64"/{apt/parts,root}
  printf 'deb %s %s main\n' "$site" "$codename" "$site" "$codename-backports" \
    >"$aarch64/apt/sources.list"
  # Emulators before 10 crash when ONNX Runtime is imported.
  apt_of amd64 update
  (cd "$aarch64/apt" && apt_of amd64 download -t "$codename-backports" qemu-user)
  dpkg-deb --fsys-tarfile "$aarch64"/apt/qemu-user_*.deb |
    tar -x -C "$aarch64" --strip-components=3 ./usr/bin/qemu-aarch64
  "$aarch64/qemu-aarch64" --version | grep -E 'version [1-9][0-9]' ||
    { say "QEMU 10 or later is needed: Debian 12 or later has it."; return 1; }

  apt_of arm64 update
  apt_of arm64 install --download-only -y "${arm64_packages[@]}"
  for package in "$aarch64"/apt/arm64/archives/*.deb; do
    dpkg-deb -x "$package" "$aarch64/root"
  done
  [[ -e $aarch64/root/lib ]] || ln -s usr/lib "$aarch64/root/lib" # from Debian 13 on
  rm -r "$aarch64/apt"
}

needs_debian() { # REASON
  say "An aarch64 machine is emulated on Debian 12 or later on x86_64 only ($1),"
  say "for example in a container of the image debian:12. On aarch64 nothing is emulated."
}

# apt_of ARCHITECTURE ARGUMENTS: apt-get with lists, archives and state in .aarch64/. Of the
# machine's configuration only the ways to the archive apply, such as proxies.
apt_of() {
  local architecture=$1 folder=$aarch64/apt/$1
  shift
  mkdir -p "$folder"/{lists,archives}/partial
  touch "$folder/status"
  {
    apt-config dump | grep -E '^Acquire::(http|https|ftp|Check|Retries)'
    cat <<CONF
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Dir::Etc::SourceList "$aarch64/apt/sources.list";
Dir::Etc::SourceParts "$aarch64/apt/parts";
Dir::Etc::Parts "$aarch64/apt/parts";
Dir::Etc::Main "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "$aarch64/apt/parts";
Dir::State "$folder";
Dir::State::status "$folder/status";
Dir::Cache "$folder";
CONF
  } >"$folder.conf"
  APT_CONFIG=$folder.conf apt-get "$@"
}

install_arm64_wheels() {
  local glibc platforms=() python
  python=$(readlink "$aarch64/root/usr/bin/python3")
  for glibc in {17..36}; do platforms+=(--platform "manylinux_2_${glibc}_aarch64"); done
  rm -rf "$aarch64/site"
  arm64_pip() {
    pip install --disable-pip-version-check --progress-bar off --target "$aarch64/site" \
      "${platforms[@]}" --only-binary=:all: --implementation cp \
      --python-version "${python#python}" "$@"
  }
  arm64_pip "${arm64_wheels[@]}"
  arm64_pip --no-deps "$insightface"
}
