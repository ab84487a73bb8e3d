#!/usr/bin/env bash
# Runs the kernel and fixture tests in Node on Mesa's lavapipe, a software Vulkan driver with half floats and subgroups of 8.
# Mesa 24 or newer has both: the system's where it is new enough, else a Debian 13 folder that is made once with debootstrap and
# entered with chroot, which needs Linux and root, a minute, and 0.5 GB. Where neither can be had, everything counts as skipped.
#
#   scripts/lavapipe.sh              kernels and small networks, then the fixtures of ../shared/fixtures where they are
#   scripts/lavapipe.sh COMMAND...   one command, e.g. node_modules/.bin/vitest run --project gpu test/gpu/attention.test.ts
#
# ZOETROPE_TRIXIE: the Debian 13 folder. Default /var/cache/zoetrope/trixie.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
trixie=${ZOETROPE_TRIXIE:-/var/cache/zoetrope/trixie}
minimum=24

skip() {
  echo "lavapipe is skipped: $1"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
}

# Prints the driver file of a system's lavapipe if its Mesa is new enough. The argument is the system's root folder.
driver_of() {
  local library file
  library=$(find "$1"/usr/lib* -name libvulkan_lvp.so -print -quit 2>/dev/null) || true
  file=$(find "$1"/usr/share/vulkan/icd.d -name 'lvp_icd*.json' -print -quit 2>/dev/null) || true
  [[ -n $library && -n $file ]] || return 1
  local version
  version=$(grep -aoE 'Mesa [0-9]+\.[0-9]+' "$library" | head -n 1 | grep -oE '[0-9]+' | head -n 1)
  [[ -n $version && $version -ge $minimum ]] || return 1
  echo "${file#"$1"}"
}

# Makes the Debian 13 folder; a rename at the end means that a folder by its own name is whole.
make_trixie() {
  command -v debootstrap >/dev/null || apt-get install -y --no-install-recommends debootstrap ||
    { apt-get update && apt-get install -y --no-install-recommends debootstrap; } || return 1
  local part=$trixie.part
  rm -rf "$part"
  mkdir -p "$part"
  debootstrap --variant=minbase --include=libvulkan1,libstdc++6,mesa-vulkan-drivers trixie "$part" || return 1
  mv "$part" "$trixie"
}

# Runs a command on lavapipe: ZOETROPE_GPU tells the tests to take the system's driver, VK_DRIVER_FILES which one that is.
run() {
  if [[ -z $root ]]; then
    ZOETROPE_GPU=system VK_DRIVER_FILES=$driver VK_ICD_FILENAMES=$driver "$@"
    return
  fi
  # The mounts live in a namespace of their own and end with it.
  # shellcheck disable=SC2016
  unshare --mount --propagation private bash -c '
    set -euo pipefail
    root=$1 repository=$2 driver=$3 node=$4
    shift 4
    mount_at() { mkdir -p "$root$2" && mount --rbind "$1" "$root$2"; }
    mount -t tmpfs tmpfs "$root/tmp" # first: the repository may lie in it
    mount_at "$repository" "$repository"
    shared=$(dirname "$repository")/shared
    if [[ -d $shared ]]; then mount_at "$shared" "$shared"; fi
    mount_at /dev /dev
    mount_at /proc /proc
    touch "$root/usr/local/bin/node"
    mount --bind "$node" "$root/usr/local/bin/node"
    exec chroot "$root" /usr/bin/env -i HOME=/tmp PATH=/usr/local/bin:/usr/bin:/bin CI="${CI:-}" NO_COLOR=1 MESA_SHADER_CACHE_DIR=/var/cache/mesa \
      ZOETROPE_GPU=system VK_DRIVER_FILES="$driver" VK_ICD_FILENAMES="$driver" \
      bash -c "cd \"\$1\" && shift && exec \"\$@\"" bash "$repository" "$@"
  ' bash "$root" "$repository" "$driver" "$(command -v node)" "$@"
}

[[ $(uname -s) == Linux ]] || skip 'it needs Linux.'
root=
if ! driver=$(driver_of ''); then
  [[ $(id -u) == 0 ]] || skip "the system has no Mesa $minimum or newer, and making a Debian 13 folder needs root."
  command -v apt-get >/dev/null || skip "the system has no Mesa $minimum or newer, nor apt-get to install debootstrap."
  if [[ ! -d $trixie ]]; then
    echo "Making $trixie, see .cache/debootstrap.log ..."
    mkdir -p .cache
    make_trixie >.cache/debootstrap.log 2>&1 || true
  fi
  root=$trixie
  driver=$(driver_of "$root") || skip "$trixie has no lavapipe of Mesa $minimum or newer; delete the folder to make it anew."
  run node --version >/dev/null || skip "Node does not start in $trixie: this machine allows no mounts, or its Node needs other libraries."
fi
echo "lavapipe: ${root:-the system}, $driver"

if [[ $# -gt 0 ]]; then
  run "$@"
  exit
fi
# The kernels and networks that have half floats; the fixtures below run the whole of sampling and decoding.
kernels=(attention causal-conv combine film-kernels film flow i420 keep-frames onnx-ops qk-norm-rope residual rife-family spatial-attention
  vae-pixels)
kernels=("${kernels[@]/%/.test.ts}")
# Each run ends with its own line of counts; who wants the sum passes the output through scripts/sum-counts.sh.
status=0
run node_modules/.bin/vitest run --project gpu "${kernels[@]/#/test/gpu/}" || status=1
for cases in ../shared/fixtures ../shared/data/demo-model/golden ../shared/data/rife ../shared/data/film; do
  if [[ -d $cases ]]; then run node_modules/.bin/vite-node test/fixtures/main.ts "$cases" || status=1; fi
done
exit "$status"
