import multiprocessing
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.errors import StageFailed
from harness.store import artifacts


def build_text(text: str):  # type: ignore[no-untyped-def]
    def build(folder: Path) -> Mapping[str, object]:
        (folder / "out").write_text(text)
        return {"length": len(text)}

    return build


def refuse(folder: Path) -> Mapping[str, object]:
    raise AssertionError("built again")


def test_the_second_call_builds_nothing(tmp_path: Path) -> None:
    first = artifacts.produce(tmp_path, "stage", {"a": 1}, build_text("x"))
    second = artifacts.produce(tmp_path, "stage", {"a": 1}, refuse)
    assert first.fresh
    assert not second.fresh
    assert first.path == second.path
    assert second.manifest["facts"] == {"length": 1}


def test_other_inputs_make_another_output(tmp_path: Path) -> None:
    first = artifacts.produce(tmp_path, "stage", {"a": 1}, build_text("x"))
    second = artifacts.produce(tmp_path, "stage", {"a": 2}, build_text("y"))
    assert first.path != second.path


def test_a_failed_build_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    def fail(folder: Path) -> Mapping[str, object]:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artifacts.produce(tmp_path, "stage", {}, fail)
    assert [p.name for p in (tmp_path / ".harness/build/stage").iterdir() if p.is_dir()] == []
    assert artifacts.produce(tmp_path, "stage", {}, build_text("x")).fresh


def test_a_folder_without_its_manifest_is_built_again(tmp_path: Path) -> None:
    made = artifacts.produce(tmp_path, "stage", {}, build_text("x"))
    (made.path / "manifest.json").unlink()
    assert artifacts.produce(tmp_path, "stage", {}, build_text("y")).fresh


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    made = artifacts.produce(tmp_path, "stage", {}, build_text("x"))
    (made.path / "manifest.json").unlink()
    left = made.path.parent / f".{made.path.name}.dead.tmp"
    left.mkdir()
    artifacts.produce(tmp_path, "stage", {}, build_text("y"))
    assert not left.exists()


def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    def full(folder: Path) -> Mapping[str, object]:
        raise OSError(28, os.strerror(28))

    with pytest.raises(StageFailed) as caught:
        artifacts.produce(tmp_path, "stage", {}, full)
    assert caught.value.cause == "the disk is full"


def _slow(workspace: Path, log: Path) -> None:
    def build(folder: Path) -> Mapping[str, object]:
        time.sleep(0.5)
        with log.open("a") as file:
            file.write("built\n")
        return {}

    artifacts.produce(workspace, "stage", {}, build)


def test_two_processes_do_the_work_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    workers = [context.Process(target=_slow, args=(tmp_path, log)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert log.read_text() == "built\n"
