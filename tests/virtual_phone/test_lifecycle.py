"""Starting and stopping: one phone of a name, no traces of dead ones."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.errors import MissingTool, StageFailed, UsageError
from harness.types import Abi
from harness.virtual_phone import lifecycle, native_tools, sandbox
from harness.virtual_phone.lifecycle import Phone

pytestmark = pytest.mark.phone


def start(workspace: Path, **options: int) -> Phone:
    try:
        return lifecycle.start(Abi.X86_64, workspace, **options)
    except MissingTool as missing:
        pytest.skip(f"{missing.what}: {missing.remedy}")


def processes_of(folder: Path) -> list[str]:
    """Processes of the host whose command line or root names the phone's folder."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                line = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(folder) in line:
                found.append(line)
    return found


def test_a_running_phone_is_taken_as_it_is_and_stops(tmp_path: Path) -> None:
    first = start(tmp_path)
    try:
        assert start(tmp_path) == first
        assert lifecycle.status(tmp_path) == [first]
        assert not 5555 <= first.port <= 5585
    finally:
        first.stop()
    assert lifecycle.status(tmp_path) == []
    assert processes_of(first.folder) == []
    first.stop()


def test_native_programs_that_two_make_at_once_are_whole(tmp_path: Path) -> None:
    script = "from harness.virtual_phone import native_tools; print(native_tools.prepare())"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    argv = [sys.executable, "-c", script]
    children = [
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)
    ]
    outputs = [child.communicate(timeout=240)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert outputs[0] == outputs[1]
    made = Path(outputs[0].strip())
    assert {path.name for path in made.iterdir()} == set(native_tools.PROGRAMS)
    # Neither leaves anything half made beside it.
    assert [*made.parent.iterdir()] == [made]


def test_two_starts_at_once_give_one_phone(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from harness.types import Abi;"
        "from harness.virtual_phone import lifecycle;"
        "print(lifecycle.start(Abi.X86_64, Path(sys.argv[1])).pid)"
    )
    start(tmp_path).stop()  # what must be prepared once is prepared
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [child.communicate(timeout=60)[0].strip() for child in children]
    phones = lifecycle.status(tmp_path)
    try:
        # Both starters have ended; the phone lives on.
        assert outputs[0] == outputs[1] == str(phones[0].pid)
    finally:
        phones[0].stop()


def test_a_killed_phone_leaves_no_process_and_starts_again_on_its_port(tmp_path: Path) -> None:
    first = start(tmp_path)
    try:
        os.kill(first.pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while processes_of(first.folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert processes_of(first.folder) == []
        assert lifecycle.status(tmp_path) == []
    finally:
        second = start(tmp_path)
    try:
        assert second.pid != first.pid and second.port == first.port
    finally:
        second.stop()


def test_a_phone_s_data_outlives_it(tmp_path: Path) -> None:
    phone = start(tmp_path)
    (phone.folder / "rootfs/data/local/tmp/kept").write_text("kept")
    phone.stop()
    phone = start(tmp_path)
    try:
        assert (phone.folder / "rootfs/data/local/tmp/kept").read_text() == "kept"
    finally:
        phone.stop()


def test_another_size_than_the_running_phone_s_is_an_error(tmp_path: Path) -> None:
    phone = start(tmp_path)
    try:
        with pytest.raises(UsageError, match="another memory"):
            lifecycle.start(Abi.X86_64, tmp_path, memory_mib=512)
    finally:
        phone.stop()


def test_a_long_workspace_path_is_no_obstacle(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    phone = start(deep)
    phone.stop()


def test_a_folder_that_cannot_be_written_is_an_error_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / ".harness").write_text("in the way")
    with pytest.raises(StageFailed, match="cannot write"):
        lifecycle.start(Abi.X86_64, tmp_path)


def test_a_phone_ends_when_its_folder_is_taken_away(tmp_path: Path) -> None:
    phone = start(tmp_path)
    shutil.rmtree(tmp_path / ".harness")
    deadline = time.monotonic() + 30
    while processes_of(phone.folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(phone.folder) == []


def test_a_name_that_is_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no name for a phone"):
        lifecycle.start(Abi.X86_64, tmp_path, name="../x")


def test_many_threads_may_ask_for_the_state_of_phones(tmp_path: Path) -> None:
    phone = start(tmp_path)
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(len(lifecycle.status(tmp_path))))
        for _ in range(8)
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert answers == [1] * 8
    finally:
        phone.stop()


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        (
            {"kernel/apparmor_restrict_unprivileged_userns": "1"},
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            {"kernel/unprivileged_userns_clone": "0"},
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        ({"user/max_user_namespaces": "0"}, "sudo sysctl -w user.max_user_namespaces=15000"),
    ],
)
def test_restricted_namespaces_are_told_with_the_remedy(
    settings: dict[str, str], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "_setting", lambda name: settings.get(name, ""))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    failure = sandbox.explain("unshare namespaces: Operation not permitted")
    assert isinstance(failure, MissingTool)
    assert failure.remedy == remedy


def test_the_sandbox_of_this_system_is_told() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("util-linux is not installed")
    assert sandbox.check() == "user namespaces"
