# What scripts/demo and scripts/test share: make .venv, install what is missing, say what and why.
# Sourced with the repository's root as the working folder.

say() { printf '%s\n' "$*" >&2; }
fail() { say "x setup    $1"; say "  try    $2"; exit 3; }

# Debian packages that PyPI and Maven cannot bring: command or file, package, reason.
NEEDED_PACKAGES="
mvn maven compiles_the_Kotlin_engine
javac default-jdk-headless runs_Maven,_D8_and_apksig
qemu-aarch64-static qemu-user-static runs_arm64_code_on_this_machine
busybox busybox-static is_the_virtual_phone's_shell
/usr/aarch64-linux-gnu/lib/libc.so.6 libc6-arm64-cross is_the_arm64_phone's_C_library
unshare util-linux makes_the_virtual_phone's_sandbox
"

is_static() {
  local path
  path=$(command -v "$1") && ! ldd "$path" >/dev/null 2>&1
}

missing_packages() {
  printf '%s' "$NEEDED_PACKAGES" | while read -r what package why; do
    [ -n "$what" ] || continue
    case "$what" in
      /*) [ -e "$what" ] || echo "$package $why" ;;
      # Debian's other busybox needs shared libraries, which the phone's root does not have.
      busybox) is_static busybox || echo "$package $why" ;;
      *) command -v "$what" >/dev/null 2>&1 || echo "$package $why" ;;
    esac
  done
}

# usage: patiently TEXT COMMAND ...   runs the command and says every few seconds that it still does
patiently() {
  local text=$1 began=$SECONDS pid status=0
  shift
  "$@" </dev/null &
  pid=$!
  # A command in the background does not see Ctrl-C.
  trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    [ $(((SECONDS - began) % 8)) -ne 7 ] || say "· setup    $text  $((SECONDS - began)) s"
  done
  wait "$pid" || status=$?
  trap - INT TERM
  return $status
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

install_packages() {
  [ -n "$1" ] || return 0
  local names
  names=$(printf '%s\n' "$1" | cut -d' ' -f1 | tr '\n' ' ')
  printf '%s\n' "$1" | while read -r package why; do say "  setup    $package: it ${why//_/ }"; done
  if ! command -v apt-get >/dev/null || { [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; }; then
    say "! setup    may not install Debian packages here; missing: $names"
    say "  try      sudo apt-get install $names"
    return 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  patiently "apt-get update" as_root apt-get update -qq ||
    fail "apt-get update failed" "check the network, then run this again"
  # shellcheck disable=SC2086
  patiently "apt-get install" as_root apt-get install -y -qq --no-install-recommends $names >/dev/null ||
    fail "apt-get could not install $names" "sudo apt-get install $names"
}

find_python() {
  local candidate
  for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return 0
    fi
  done
  return 1
}

# usage: setup EXTRAS ("" or "[dev]")
setup() {
  local python wanted stamp
  python=$(find_python) || fail "Python 3.11 or newer is not here" "sudo apt-get install python3 python3-venv"
  if ! [ -x .venv/bin/python ]; then
    "$python" -c 'import ensurepip' 2>/dev/null ||
      install_packages "python3-venv makes_.venv" || fail "python3-venv is missing" "sudo apt-get install python3-venv"
    say "  setup    .venv: the harness and its Python packages live there"
    "$python" -m venv .venv
  fi
  # The lock line: what is installed is what pyproject.toml says now.
  wanted="$1 $(cksum <pyproject.toml) $(pwd)"
  stamp=.venv/.harness-setup
  if ! grep -qxF "$wanted" "$stamp" 2>/dev/null; then
    say "  setup    Python packages from PyPI (TVM, zig, cmake, adb and others, about 300 MB)"
    patiently "pip install" .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".$1" ||
      fail "pip could not install the Python packages" "check the network, then run this again"
    # The set with the developers' packages serves both scripts.
    { [ -z "$1" ] || echo " ${wanted#"$1 "}"; echo "$wanted"; } >"$stamp"
  fi
}
