"""`harness tune` on this machine, and a choice in whatever runs the model afterwards."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness import cli, config, recipes, tuned, tuning
from harness.compiler import host
from harness.compiler.packages.package import read_package
from harness.errors import UsageError
from harness.pipeline import Plan, Road
from harness.tuned import Choice, Times, Tuned
from harness.types import Abi

runs = pytest.mark.skipif(platform.machine() != "x86_64", reason="packages run on an x86_64 host")
CHECKOUT = Path(__file__).resolve().parents[2]
TIMES = Times(1.0, 0.1, 0.5, 0.1)


def choice(model: str, soc: str = "host", **changes: Any) -> Tuned:
    kept = Tuned(
        *(soc, model, "q4f16_gguf", "this machine", False, "0.1.0", "2026-11-29", 5),
        Choice(threads=1, cpu_variant="x86-64-v2", tile=2),
        *(TIMES, TIMES),
    )
    return replace(kept, **changes)


def building_in_checkout(folder: Path) -> Path:
    """A workspace that builds where the checkout does, so that libraries are compiled once."""
    (CHECKOUT / ".harness/build").mkdir(parents=True, exist_ok=True)
    (folder / ".harness").mkdir()
    (folder / ".harness/build").symlink_to(CHECKOUT / ".harness/build")
    return folder


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def harness(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """The command line, which tries one tile beside the kernels' own."""
    monkeypatch.setattr(tuning, "TILES", (2,))
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        code = cli._run([str(word) for word in words])
        return Outcome(code, *capsys.readouterr())

    return run


def kept_in(workspace: Path, model: Path, soc: str = "host") -> Path:
    recipe = recipes.find(str(model), workspace)
    return tuned.path_in(recipes.home(recipe, workspace), soc)


@runs
def test_this_machine_is_tuned_and_the_choice_lies_where_it_is_looked_for(
    harness: Callable[..., Outcome], tiny_gguf: Path, tmp_path: Path
) -> None:
    workspace = building_in_checkout(tmp_path)
    path = kept_in(workspace, tiny_gguf)
    fixed = ("--threads", 1, "--cpu-variant", "x86-64-v2", "--rounds", 5)
    done = harness("tune", tiny_gguf, "--workspace", workspace, *fixed, "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    found = tuned.load(path)
    assert document["schema"] == "harness.tune/1" and document["path"] == str(path)
    assert document["soc"] == found.soc == "host" and not found.virtual
    assert [(one["threads"], one["tile"]) for one in document["tiles"]] == [(1, None), (1, 2)]
    assert all(len(one["samples"]) == 5 for one in document["tiles"])
    assert all(sample["decode_ms"] > 0 for one in document["tiles"] for sample in one["samples"])
    assert document["variants_and_threads"] == []
    # What was given is not kept: it was not compared with anything.
    assert (found.choice.threads, found.choice.cpu_variant) == (None, None)
    assert document["choice"]["tile"] == found.choice.tile
    assert found.default.decode_ms == document["default"]["decode_ms"]


@runs
def test_a_choice_changes_the_library_for_its_processor_and_for_no_other(
    harness: Callable[..., Outcome], tiny_gguf: Path, tmp_path: Path
) -> None:
    workspace = building_in_checkout(tmp_path)
    path = kept_in(workspace, tiny_gguf)
    name = recipes.find(str(tiny_gguf), workspace).name
    words = (tiny_gguf, "--workspace", workspace)
    tuned.save(path, choice(name, choice=Choice(tile=2)))
    for_phone = harness("run", *words, "--abi", "x86_64", "--to", "compile", "--json")
    for_all = harness("compile", *words, "--abi", "x86_64", "--json")
    assert for_phone.code == for_all.code == 0, for_phone.err
    assert for_phone.err.count("tuned for host: tiles of 2 tokens") == 1
    assert "tuned for" not in for_all.err
    tiled, own = (read_package(Path(json.loads(one.out)["path"])) for one in (for_phone, for_all))
    assert [one.facts["stamp"]["options"]["tile"] for one in (tiled, own)] == [2, None]
    first, second = tiled.facts["files"], own.facts["files"]
    assert {file for file in first if first[file] != second[file]} == {"lib/x86_64/libmodel.so"}
    answers = [host.generate(one.path, list(range(3, 70)), 8) for one in (tiled, own)]
    assert answers[0]["token_ids"] == answers[1]["token_ids"]


def road(folder: Path, *, abi: Abi = Abi.X86_64, abis: tuple[Abi, ...] = (), **flags: Any) -> Road:
    """The road of the model that ships, for a virtual phone that does not run."""
    settings = config.load(
        folder, {"device.abi": abi, **{f"run.{name}": value for name, value in flags.items()}}
    )
    recipe = recipes.find("smollm2-135m-instruct", folder)
    return Road(Plan.of(recipe, settings, abis=abis), settings)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace in which the processor of x86_64 virtual phones was tuned."""
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    kept = choice("smollm2-135m-instruct")
    tuned.save(tuned.path_in(tmp_path / "models" / kept.model, kept.soc), kept)
    return tmp_path


def test_a_choice_is_taken_for_its_processor(known: Path) -> None:
    walk = road(known)
    assert walk.tuned == Choice(1, "x86-64-v2", 2)
    assert (walk.threads, walk.cpu_variant) == (1, "x86-64-v2")


def test_a_flag_or_a_setting_comes_before_a_choice(
    known: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    walk = road(known, threads=2)
    assert (walk.threads, walk.cpu_variant, walk.tuned.tile) == (2, "x86-64-v2", 2)
    assert "tuned for host: x86-64-v2, tiles of 2 tokens\n" in capsys.readouterr().err
    (known / "harness.toml").write_text('[run]\ncpu_variant = "x86-64-v3"\n')
    walk = road(known)
    assert (walk.threads, walk.cpu_variant) == (1, "x86-64-v3")


@pytest.mark.parametrize(
    "other",
    [{"abi": Abi.ARM64}, {"quantization": "q8f16_1"}, {"abis": (Abi.X86_64,)}],
    ids=["processor", "quantization", "any device"],
)
def test_what_was_not_tuned_runs_as_before(known: Path, other: dict[str, Any]) -> None:
    walk = road(known, **other)
    assert walk.tuned == Choice() and (walk.threads, walk.cpu_variant) == (None, None)


def test_a_choice_for_another_quantization_is_named(
    known: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert road(known, quantization="q8f16_1").tuned == Choice()
    assert "not tuned for host in q8f16_1" in capsys.readouterr().err


def test_a_broken_choice_is_one_clear_error_before_any_work(
    known: Path, harness: Callable[..., Outcome]
) -> None:
    path = kept_in(known, Path("smollm2-135m-instruct"))
    path.write_text("threads = 4\n")
    done = harness("run", "--workspace", known, "--abi", "x86_64")
    assert done.code == 2 and done.out == ""
    assert "host.toml is no choice of `harness tune`" in done.err
    assert f"rm {path}" in done.err and "compile  weights" not in done.err


def test_plain_kernels_are_not_tuned(known: Path, harness: Callable[..., Outcome]) -> None:
    walk = road(known)
    plain = replace(walk.plan, options=replace(walk.plan.options, opt_level=1))
    assert Road(plain, walk.config).tuned == Choice()
    with pytest.raises(UsageError, match="there is nothing to tune"):
        tuning.tune(plain, walk.config, 5)


def test_an_unknown_device_is_a_device_error(
    known: Path, harness: Callable[..., Outcome], adb_port: int
) -> None:
    done = harness("tune", "-s", "nosuchphone", "--workspace", known)
    assert done.code == 5 and "nosuchphone" in done.err and "Traceback" not in done.err


def test_fewer_rounds_than_tell_anything_are_refused(
    known: Path, harness: Callable[..., Outcome]
) -> None:
    assert harness("tune", "--rounds", 4, "--workspace", known).code == 2
