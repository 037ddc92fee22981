"""Models on a device: files under their SHA-256, and a stamp for each package that names them.

Packages share what is equal, and an interrupted transfer goes on where it stopped: a file is sent
under a temporary name, hashed by the device, and only then renamed. The stamp, which the app
reads, comes last.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.device.link import DeviceFull, DeviceLink
from harness.errors import DeviceError

STAMP_SCHEMA = "harness.installed-model/1"
ROOT = "/data/local/tmp/harness"
BLOBS = f"{ROOT}/blobs"
MODELS = f"{ROOT}/models"

# Room that a push leaves free: Android misbehaves on a full /data.
SPARE_BYTES = 64 << 20
HASH_SECONDS = 900.0

# $1 the root, $2 the stamp. `stat -f`: %a free blocks, %S the size of one.
_SURVEY = """
set -e
mkdir -p "$1/blobs" "$1/models"
chmod 755 "$1" "$1/blobs" "$1/models"
rm -f "$1"/blobs/.*.part "$1"/models/.*.part
stat -f -c 'free %a %S' "$1"
find "$1/blobs" -type f -exec stat -c '%s %n' {} +
echo stamp
if [ -e "$2" ]; then cat "$2"; fi
"""
# $1 temporary name, $2 SHA-256, $3 final name.
_ACCEPT = """
actual=$(sha256sum "$1") || exit 2
case "$actual" in "$2 "*) chmod 644 "$1" && mv -f "$1" "$3" ;; *) echo "$actual"; exit 3 ;; esac
"""


@dataclass(frozen=True)
class File:
    """A file of a package, here and on the device."""

    relative: str
    local: Path
    sha256: str
    size: int

    @property
    def remote(self) -> str:
        """Its final name on the device."""
        return f"{BLOBS}/{self.sha256}"


@dataclass(frozen=True)
class Survey:
    """What a device holds: sizes of files by SHA-256, free bytes, and a package's stamp."""

    blobs: Mapping[str, int]
    free_bytes: int
    stamp: str


def stamp_path(package_key: str) -> str:
    """Where a package's stamp lies on the device."""
    return f"{MODELS}/{package_key}.json"


def stamp_document(package_key: str, files: Sequence[File]) -> dict[str, object]:
    """The stamp: every file of the package and where it lies."""
    return {
        "schema": STAMP_SCHEMA,
        "package": package_key,
        "files": {
            file.relative: {"path": file.remote, "size": file.size, "sha256": file.sha256}
            for file in sorted(files, key=lambda file: file.relative)
        },
    }


def survey(link: DeviceLink, stamp: str) -> Survey:
    """What the device holds; makes the folders and removes what an interrupted push left."""
    return read_survey(link.shell(["sh", "-c", _SURVEY, "sh", ROOT, stamp]).stdout)


def read_survey(text: str) -> Survey:
    """A survey from what its script prints."""
    listed, _, stamp = text.replace("\r\n", "\n").partition("stamp\n")
    free = re.search(r"^free (\d+) (\d+)$", listed, re.MULTILINE)
    if free is None:
        raise DeviceError(
            "the device does not tell its free storage",
            cause=listed.strip() or "it printed nothing",
            remedy="adb shell stat -f /data/local/tmp",
        )
    pattern = rf"^(\d+) {re.escape(BLOBS)}/([0-9a-f]{{64}})$"
    blobs = {name: int(size) for size, name in re.findall(pattern, listed, re.MULTILINE)}
    return Survey(blobs, int(free.group(1)) * int(free.group(2)), stamp.strip())


def damaged(link: DeviceLink, files: Sequence[File]) -> list[File]:
    """Those of `files` whose bytes on the device do not have the SHA-256 of their names."""
    if not files:
        return []
    argv = ["sha256sum", *(file.remote for file in files)]
    printed = link.shell(argv, timeout=HASH_SECONDS, check=False).stdout
    found = re.findall(r"^([0-9a-f]{64}) [ *](\S+?)\r?$", printed, re.MULTILINE)
    hashes = {name: digest for digest, name in found}
    return [file for file in files if hashes.get(file.remote) != file.sha256]


def push(
    link: DeviceLink,
    files: Sequence[File],
    *,
    free_bytes: int,
    progress: Callable[[int, int], None],
) -> int:
    """Send files and let the device check them; the number of bytes that went over.

    `progress` is called with bytes sent and bytes in all. Raises `DeviceFull` with numbers, before
    the first byte where that can be known; files that were sent whole stay.
    """
    unique = list({file.sha256: file for file in files}.values())
    total = sum(file.size for file in unique)
    if total + SPARE_BYTES > free_bytes:
        raise _full(link, total, free_bytes)
    sent = 0
    for file in unique:
        before = sent

        def show(done: int, before: int = before) -> None:
            progress(before + done, total)

        try:
            _push_file(link, file, show)
        except DeviceFull as problem:
            raise _full(link, total - sent, _free_bytes(link)) from problem
        sent += file.size
    progress(sent, total)
    return sent


def write_stamp(link: DeviceLink, path: str, document: Mapping[str, object]) -> None:
    """Put a package's stamp in place, whole or not at all."""
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.{name}.part"
    data = json.dumps(document, indent=1).encode() + b"\n"
    try:
        link.push_bytes(data, temporary)
    except DeviceFull as problem:
        link.shell(["rm", "-f", temporary])
        raise _full(link, len(data), _free_bytes(link)) from problem
    # adbd makes files writable by all; the app must be able to trust this one.
    script = 'chmod 644 "$1" && mv -f "$1" "$2"'
    link.shell(["sh", "-c", script, "sh", temporary, path])


def _push_file(link: DeviceLink, file: File, progress: Callable[[int], None]) -> None:
    temporary = f"{BLOBS}/.{file.sha256}.part"
    try:
        link.push(file.local, temporary, progress=progress)
    except DeviceFull:
        link.shell(["rm", "-f", temporary])
        raise
    argv = ["sh", "-c", _ACCEPT, "sh", temporary, file.sha256, file.remote]
    done = link.shell(argv, timeout=HASH_SECONDS, check=False)
    if done.code:
        raise DeviceError(
            f"{file.relative} did not arrive whole on {link.serial}",
            cause=(done.stderr or done.stdout).strip()
            or f"the check ended with exit code {done.code}",
            remedy="run the same command again; it sends only what is missing",
        )


def _free_bytes(link: DeviceLink) -> int:
    blocks, size = link.shell(["stat", "-f", "-c", "%a %S", ROOT]).stdout.split()
    return int(blocks) * int(size)


def _full(link: DeviceLink, needed: int, free: int) -> DeviceFull:
    mib = 1 << 20
    return DeviceFull(
        f"{link.serial}: storage is full",
        cause=(
            f"the push needs {needed / mib:.1f} MiB and {SPARE_BYTES // mib} MiB to spare, "
            f"/data has {free / mib:.1f} MiB free"
        ),
        remedy=f"adb -s {link.serial} shell rm -r {BLOBS}   # removes the models there",
    )
