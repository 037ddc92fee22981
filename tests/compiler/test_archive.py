"""Archives: the same bytes for the same package, and nothing believed of a hostile one."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import files
from harness.compiler.packages.archive import open_tar, write_tar
from harness.compiler.packages.package import (
    PACKAGE_JSON,
    read_package,
    tvm_version,
    write_package_json,
)
from harness.errors import HarnessError, StageFailed, UsageError

Edit = Callable[[tarfile.TarFile], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package") / "package"
    (folder / "lib" / "arm64-v8a").mkdir(parents=True)
    (folder / "lib" / "arm64-v8a" / "libmodel.so").write_bytes(b"\x7fELF" + bytes(900))
    (folder / "params_shard_0.bin").write_bytes(bytes(range(256)) * 5)
    (folder / "tokenizer.json").write_text("{}")
    stamp = {"tvm": tvm_version(), "targets": {"arm64-v8a": {}}}
    write_package_json(folder, {"name": "tiny", "stamp": stamp})
    return folder


@pytest.fixture(scope="module")
def packed(folder: Path) -> Path:
    path = folder.parent / "package.tar"
    write_tar(folder, path)
    return path


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **changes: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in changes.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(data))


def repack(packed: Path, path: Path, edit: Edit, format: int = tarfile.USTAR_FORMAT) -> Path:
    """The package's archive with `edit` made at its end."""
    with tarfile.open(packed) as old, tarfile.open(path, "w", format=format) as new:
        for member in old:
            new.addfile(member, old.extractfile(member))
        edit(new)
    return path


def test_a_package_comes_out_as_it_went_in(folder: Path, packed: Path, tmp_path: Path) -> None:
    package = open_tar(packed, tmp_path / "deep" / "out")
    assert package.path == tmp_path / "deep" / "out"
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    for name in names:
        assert package.file(name).read_bytes() == (folder / name).read_bytes()
    assert read_package(package.path, verify=True) == package
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_two_archives_of_a_package_have_the_same_bytes(
    folder: Path, packed: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    write_tar(copy, tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == packed.read_bytes()
    with tarfile.open(packed) as archive:
        assert archive.next().name == PACKAGE_JSON  # type: ignore[union-attr]


def test_the_system_s_tar_reads_it_and_packs_one_that_is_read(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xf", packed, "-C", tmp_path / "out"], check=True)
    argv = ["tar", "--format=ustar", "-cf", tmp_path / "own.tar", "-C", tmp_path / "out", "."]
    subprocess.run(argv, check=True)
    assert open_tar(tmp_path / "own.tar", tmp_path / "again").facts["name"] == "tiny"


def test_an_unsound_folder_is_not_packed(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(StageFailed, match="damaged"):
        write_tar(copy, tmp_path / "bad.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


HOSTILE: dict[str, tuple[Edit, str]] = {
    "a name that leaves the folder": (lambda tar: add(tar, "../evil"), "'../evil'"),
    "one that does so within": (lambda tar: add(tar, "lib/../../evil"), "no package has"),
    "an absolute name": (lambda tar: add(tar, "/tmp/evil"), "'/tmp/evil'"),
    "a Windows path": (lambda tar: add(tar, "C:\\evil"), "no package has"),
    "a control character": (lambda tar: add(tar, "a\nb"), "no package has"),
    "an empty name": (lambda tar: add(tar, ""), "no package has"),
    "a deep name": (lambda tar: add(tar, "a/" * 20 + "b"), "no package has"),
    "a symbolic link": (lambda tar: add(tar, "a", type=b"2", linkname="/etc"), "a link"),
    "a hard link": (lambda tar: add(tar, "a", type=b"1", linkname="tokenizer.json"), "a link"),
    "a device": (lambda tar: add(tar, "a", type=b"3"), "special file"),
    "a pipe": (lambda tar: add(tar, "a", type=b"6"), "special file"),
    "a file twice": (lambda tar: add(tar, "tokenizer.json", b"[]"), "tokenizer.json twice"),
    "the same again by dots": (lambda tar: add(tar, "./tokenizer.json"), "twice"),
    "names that differ in case": (lambda tar: add(tar, "Tokenizer.json"), "in case only"),
    "folders that differ in case": (lambda tar: add(tar, "LIB/a"), "in case only"),
    "a file that is a folder": (lambda tar: add(tar, "lib"), "a file and a folder"),
    "a file that nobody named": (lambda tar: add(tar, "more.bin"), "does not name"),
    "many files": (lambda tar: [add(tar, f"f{i}") for i in range(5000)], "more than 4096"),
    "many folders": (lambda tar: [add(tar, "d", type=b"5") for _ in range(5000)], "more than"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_writes_nothing(
    packed: Path, tmp_path: Path, kind: str
) -> None:
    edit, said = HOSTILE[kind]
    bad = repack(packed, tmp_path / "bad.tar", edit)
    with pytest.raises(StageFailed, match=r"bad\.tar is no sound package") as caught:
        open_tar(bad, tmp_path / "out")
    assert said in caught.value.cause
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar"]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_extended_headers_are_refused(packed: Path, tmp_path: Path, format: int) -> None:
    bad = repack(packed, tmp_path / "bad.tar", lambda tar: add(tar, "n" * 200), format)
    with pytest.raises(StageFailed) as caught:
        open_tar(bad, tmp_path / "out")
    assert "extended header" in caught.value.cause


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_archive_is_refused(packed: Path, tmp_path: Path, mode: str) -> None:
    with tarfile.open(packed) as old, tarfile.open(tmp_path / "bad.tar", mode) as new:  # type: ignore[call-overload]
        add(new, PACKAGE_JSON, b"0" * (8 << 20))
        for member in old:
            new.addfile(member, old.extractfile(member))
    with pytest.raises(StageFailed, match="no sound package"):
        open_tar(tmp_path / "bad.tar", tmp_path / "out")


def described(tmp_path: Path, change: Callable[[dict[str, object]], object]) -> Path:
    """An archive of one file whose `package.json` was changed."""
    document: dict[str, object] = {"files": {"a.bin": {"size": 3, "sha256": "0" * 64}}}
    data = change(document)
    raw = data if isinstance(data, bytes) else json.dumps(document).encode()
    with tarfile.open(tmp_path / "bad.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        add(archive, PACKAGE_JSON, raw)
        add(archive, "a.bin", b"abc")
    return tmp_path / "bad.tar"


@pytest.mark.parametrize(
    "change",
    [
        lambda document: b"",
        lambda document: b"[" * 100_000,
        lambda document: b"[]",
        lambda document: b"\xff",
        lambda document: b" " * (5 << 20) + b"{}",
        lambda document: b'{"files": {"a.bin": {"size": ' + b"9" * 10_000 + b"}}}",
        lambda document: document.update(files=[]),
        lambda document: document.update(files={}),
        lambda document: document.update(files={"a.bin": 3}),
        lambda document: document.update(files={"a.bin": {"size": 4}}),
        lambda document: document.update(files={"a.bin": {"size": "3"}}),
        lambda document: document.update(files={"a.bin": {"size": 3}, "../b": {"size": 0}}),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[dict[str, object]], object]
) -> None:
    with pytest.raises(StageFailed, match="no sound package"):
        open_tar(described(tmp_path, change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_bytes_than_the_hash_says_are_refused(packed: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.tar"
    bad.write_bytes(packed.read_bytes().replace(b"\x7fELF", b"\x7fELG"))
    with pytest.raises(StageFailed) as caught:
        open_tar(bad, tmp_path / "out")
    assert "libmodel.so has other bytes" in caught.value.cause
    assert str(bad) in caught.value.what and ".tmp" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar"]


def test_what_is_there_is_not_overwritten_and_what_is_not_is_named(
    packed: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is there already"):
        open_tar(packed, tmp_path)
    for path in (tmp_path / "absent.tar", tmp_path):
        with pytest.raises(UsageError, match="cannot read"):
            open_tar(path, tmp_path / "out")


def test_a_sparse_file_cannot_blow_up(packed: Path, tmp_path: Path) -> None:
    # Old GNU sparse: a header of 512 bytes that stands for 8 TB.
    header = bytearray(tarfile.TarInfo("a.bin").tobuf(tarfile.GNU_FORMAT)[:512])
    header[156:157] = b"S"
    header[386:410] = b"00000000000\x0000000000000\x00"
    header[483:495] = b"\x80" + (8 << 40).to_bytes(11, "big")
    data = bytes(signed(header)) + packed.read_bytes()
    bad = tmp_path / "bad.tar"
    bad.write_bytes(data)
    with pytest.raises(StageFailed) as caught:
        open_tar(bad, tmp_path / "out")
    assert "extended header" in caught.value.cause


def signed(header: bytearray) -> bytearray:
    """A header with its checksum made right."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return header


def mutate(data: bytes, chance: random.Random) -> bytes:
    """The archive with a few mistakes, most of them in headers that are signed again."""
    blocks = [bytearray(data[start : start + 512]) for start in range(0, len(data), 512)]
    headers = [block for block in blocks if block[257:262] == b"ustar"]
    for _ in range(chance.randint(1, 3)):
        match chance.randrange(8):
            case 0:
                return b"".join(blocks)[: chance.randrange(len(data))]
            case 1:
                chance.choice(blocks)[chance.randrange(512)] = chance.randrange(256)
            case 2:
                blocks.insert(chance.randrange(len(blocks)), bytearray(chance.choice(blocks)))
            case 3:
                del blocks[chance.randrange(len(blocks))]
            case 4:
                header = chance.choice(headers)
                octal = b"%011o\0" % chance.choice([0, 1, 511, 512, 513, 1 << 20, (1 << 33) - 1])
                large = b"\x80" + chance.choice([1, 1 << 40, (1 << 88) - 1]).to_bytes(11, "big")
                negative = b"\xff" * chance.randint(1, 12)
                field = chance.choice([octal, large, negative.ljust(12, b"\0")])
                header[124:136] = field
                signed(header)
            case 5:
                header = chance.choice(headers)
                header[156] = chance.choice(b"\x000123456789xgLKSXNVDMA\xff")
                signed(header)
            case 6:
                header = chance.choice(headers)
                at = chance.choice([chance.randrange(512), chance.randrange(20)])
                header[at : at + 1] = chance.choice([b"/", b".", b"\0", b"\xff", b"A", b"%"])
                signed(header[:512])
            case 7:
                header = chance.choice(headers)
                name = chance.choice([b"../x", b"/x", b"lib", b"LIB/x", b"package.json", b"\xff"])
                header[:100] = name.ljust(100, b"\0")
                signed(header)
    return b"".join(blocks)


def test_thousands_of_mutated_archives_meet_one_clear_error_each(packed: Path) -> None:
    data, chance = packed.read_bytes(), random.Random(7)
    sound = refused = 0
    began = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        folder = Path(name)
        for _ in range(4000):
            bad, out = folder / "bad.tar", folder / "out"
            bad.write_bytes(mutate(data, chance))
            try:
                package = open_tar(bad, out)
            except HarnessError as problem:
                refused += bool(problem.what and problem.cause and problem.remedy)
            else:
                # Only where the mistakes lie in what no file is made of.
                for file, entry in package.facts["files"].items():
                    assert files.sha256_file(out / file) == entry["sha256"]
                shutil.rmtree(out)
                sound += 1
            assert [path.name for path in folder.iterdir()] == ["bad.tar"]
    assert refused + sound == 4000 and refused > 3000 and sound > 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    assert time.monotonic() - began < 60
