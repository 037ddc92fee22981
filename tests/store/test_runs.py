"""Run folders and their index."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import StageFailed, UsageError
from harness.store import runs

META = {
    "model": "tiny",
    "quantization": "q4f16_1",
    "device": "virtual phone",
    "target": "arm64-v8a-glibc",
    "virtual": True,
}


def record(workspace: Path, *, samples: int = 3) -> Path:
    with runs.create_run(workspace, META) as run:
        for number in range(samples):
            run.append("lmx", {"t": "tokens", "first": number})
        return run.finish({"ok": True}).path


def test_a_finished_run_reads_back_as_it_was_written(tmp_path: Path) -> None:
    run = runs.open_run(record(tmp_path))
    assert run.state == "finished"
    assert run.meta == META
    assert run.summary == {"ok": True}
    assert [sample.record["first"] for sample in run.samples()] == [0, 1, 2]


def test_a_run_that_breaks_off_keeps_its_samples_and_its_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), runs.create_run(tmp_path, META) as run:
        run.append("lmx", {"t": "begin"})
        raise RuntimeError("the phone is gone")
    stored = runs.open_run(run.path)
    assert stored.state == "failed"
    assert stored.summary == {"error": "the phone is gone"}
    assert [sample.record for sample in stored.samples()] == [{"t": "begin"}]


def test_a_killed_run_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    run = runs.create_run(tmp_path, META)
    run.append("lmx", {"t": "begin"})
    with (run.path / runs.SAMPLES).open("ab") as file:
        file.write(b'{"kind": "lmx", "rec')
    stored = runs.open_run(run.path)
    assert stored.state == "running"
    assert len(stored.samples()) == 1


def test_changed_samples_are_refused(tmp_path: Path) -> None:
    path = record(tmp_path)
    samples = path / runs.SAMPLES
    samples.write_bytes(samples.read_bytes().replace(b'"first":1', b'"first":7'))
    with pytest.raises(StageFailed, match="damaged"):
        runs.open_run(path).samples()


def test_the_latest_run_is_the_newest_finished_one(tmp_path: Path) -> None:
    first = record(tmp_path)
    first.rename(first.with_name("20200101T000000Z-00000001"))
    second = record(tmp_path)
    unfinished = runs.create_run(tmp_path, META)
    unfinished.path.rename(unfinished.path.with_name("20990101T000000Z-00000002"))
    assert runs.latest_run(tmp_path).path == second
    assert [row.state for row in runs.list_runs(tmp_path)] == ["finished", "finished", "running"]


def test_a_workspace_without_runs_says_so(tmp_path: Path) -> None:
    assert runs.list_runs(tmp_path) == []
    with pytest.raises(UsageError, match="no finished run"):
        runs.latest_run(tmp_path)
    assert not (tmp_path / ".harness").exists()


def test_a_run_is_found_by_its_id_the_beginning_of_it_and_its_folder(tmp_path: Path) -> None:
    path = record(tmp_path)
    identifier = runs.open_run(path).id
    for name in (identifier, identifier[:4], path.name, str(path)):
        assert runs.find_run(tmp_path, name).path == path
    with pytest.raises(UsageError, match="no run nothing"):
        runs.find_run(tmp_path, "nothing")


@pytest.mark.parametrize("damage", ["missing", "garbage", "older"])
def test_the_index_is_rebuilt_when_it_is(tmp_path: Path, damage: str) -> None:
    path = record(tmp_path)
    expected = runs.list_runs(tmp_path)
    database = runs.runs_folder(tmp_path) / runs.INDEX
    if damage == "missing":
        database.unlink()
    elif damage == "garbage":
        database.write_bytes(b"not a database at all" * 500)
    else:
        with sqlite3.connect(database) as connection:
            connection.execute("DROP TABLE runs")
            connection.execute("PRAGMA user_version = 0")
        connection.close()
    assert runs.list_runs(tmp_path) == expected
    assert expected[0].folder == path.name


def test_the_index_follows_runs_that_finish_and_runs_that_are_deleted(tmp_path: Path) -> None:
    run = runs.create_run(tmp_path, META)
    assert [row.state for row in runs.list_runs(tmp_path)] == ["running"]
    run.finish({})
    assert [row.state for row in runs.list_runs(tmp_path)] == ["finished"]
    for file in run.path.iterdir():
        file.unlink()
    run.path.rmdir()
    record(tmp_path)
    assert len(runs.list_runs(tmp_path)) == 1


def test_a_run_of_another_version_is_named_and_left_out_of_the_index(tmp_path: Path) -> None:
    path = record(tmp_path)
    facts = path / runs.FACTS
    facts.write_text(facts.read_text().replace(runs.SCHEMA, "harness.run/9"))
    assert runs.list_runs(tmp_path) == []
    with pytest.raises(UsageError) as caught:
        runs.open_run(path)
    assert "harness.run/9" in caught.value.cause


@given(st.binary(max_size=200))
def test_any_bytes_as_run_json_are_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("run")
    (path / runs.FACTS).write_bytes(data)
    with pytest.raises(UsageError):
        runs.open_run(path)


@given(
    st.dictionaries(
        st.text(), st.none() | st.integers() | st.text() | st.lists(st.integers()), max_size=5
    )
)
def test_any_record_survives(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, object]
) -> None:
    with runs.create_run(tmp_path_factory.mktemp("workspace"), META) as run:
        run.append("any", content)
        stored = run.finish({})
    assert runs.open_run(stored.path).samples() == [runs.Sample("any", content)]
