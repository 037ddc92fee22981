"""The file of a choice: where it lies, what is written is read, and what is damaged is told."""

from __future__ import annotations

import errno
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness import console, recipes, resources, tuned
from harness.compiler.kernels.isa import Isa
from harness.compiler.options import TILES, CompileOptions
from harness.errors import StageFailed, UsageError
from harness.recipe import FileSource, Recipe
from harness.tuned import Choice, Times, Tuned

TIMES = Times(6.25, 0.125, 0.75, 0.0625)
KNOWN = Tuned(
    soc="sm8650",
    model="tiny",
    quantization="q4f16_1",
    device="Pixel 8",
    virtual=False,
    harness="0.1.0",
    date="2026-11-29",
    rounds=5,
    choice=Choice(threads=3, cpu_variant="armv8.2-a+dotprod", tile=8),
    chosen=TIMES,
    default=replace(TIMES, decode_ms=7.5),
)

amounts = st.floats(0, 1e9)
times = st.builds(Times, amounts, amounts, amounts, amounts)
choices = st.builds(
    Choice,
    st.none() | st.integers(1, 64),
    st.none() | st.sampled_from([isa.value for isa in Isa]),
    st.none() | st.sampled_from(TILES),
)


def recipe(folder: Path, name: str = "tiny") -> Recipe:
    source = FileSource(folder / "model.gguf", None)
    return Recipe(folder, name, "Tiny", "MIT", source, "q4f16_1", 512, 64, ("Hello",), 8)


def saved(folder: Path, content: Tuned = KNOWN) -> Path:
    path = tuned.path_in(folder, content.soc)
    tuned.save(path, content)
    return path


@given(choices, times, times, st.text(min_size=1), st.booleans())
@example(KNOWN.choice, TIMES, TIMES, 'a "phone"\n[choice]\nthreads = 64\x7f\ud800 \u2028', True)
def test_what_is_written_is_read(
    choice: Choice, chosen: Times, default: Times, device: str, virtual: bool
) -> None:
    content = replace(
        KNOWN, choice=choice, chosen=chosen, default=default, device=device, virtual=virtual
    )
    with tempfile.TemporaryDirectory() as folder:
        found = tuned.load(saved(Path(folder), content))
    assert found == replace(content, device=console.clean(device))


@given(st.data())
def test_a_damaged_file_is_one_clear_error_or_still_a_sound_choice(data: st.DataObject) -> None:
    whole = tuned.text(KNOWN).encode()
    at = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(at, len(whole)))
    damaged = whole[:at] + data.draw(st.binary(max_size=12)) + whole[end:]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sm8650.toml")
        path.write_bytes(damaged)
        found, problem = None, None
        try:
            found = tuned.load(path)
        except UsageError as one:
            problem = one
    if found is not None:
        assert found.choice.threads is None or 1 <= found.choice.threads <= 64
        assert found.choice.tile in (None, *TILES)
    if problem is not None:
        assert str(path) in problem.what and problem.cause
        assert problem.remedy.startswith(f"rm {path} ")


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("threads = 3", "threads = 0", "choice.threads is 0"),
        ("threads = 3", "threads = 65", "choice.threads is 65, it must be 64 or less"),
        ("threads = 3", "threads = true", "choice.threads must be a whole number"),
        ("threads = 3", f"threads = {'9' * 5000}", "it is not TOML"),
        ("threads = 3", "thread = 3", "choice.thread is not known; did you mean 'threads'?"),
        ("armv8.2-a+dotprod", "armv9", "choice.cpu_variant is 'armv9'"),
        ("tile = 8", "tile = 5", "choice.tile is 5, it must be one of 2, 4, 6, 8"),
        ("decode_ms = 6.25", "decode_ms = nan", "chosen.decode_ms is nan"),
        ("decode_ms = 6.25", "decode_ms = inf", "chosen.decode_ms is inf"),
        ("decode_ms = 6.25", "decode_ms = -1", "chosen.decode_ms is -1"),
        ("virtual = false", 'virtual = "no"', "virtual must be true or false"),
        ("2026-11-29", "yesterday", "date is 'yesterday'"),
        ("harness.tuned/1", "harness.tuned/2", "this harness reads 'harness.tuned/1'"),
        ("[default]", "[defaults]", "default is missing"),
        ("# Written", "\0 Written", "it is not TOML"),
        ("rounds = 5", "", "rounds is missing"),
    ],
)
def test_each_mistake_is_told_by_its_name(
    tmp_path: Path, right: str, wrong: str, told: str
) -> None:
    path = saved(tmp_path)
    path.write_text(tuned.text(KNOWN).replace(right, wrong, 1))
    with pytest.raises(UsageError, match=r"sm8650\.toml is no choice") as caught:
        tuned.load(path)
    assert told in caught.value.cause


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_text(tuned.text(KNOWN).replace("= 8", "= 9").replace("= 5", "= 0"))
    with pytest.raises(UsageError) as caught:
        tuned.load(path)
    assert "choice.tile is 9" in caught.value.cause and "rounds is 0" in caught.value.cause


def test_a_choice_of_another_model_or_processor_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "tiny"
    path = saved(folder, replace(KNOWN, model="other"))
    with pytest.raises(UsageError) as caught:
        tuned.find(recipe(tmp_path), "sm8650", tmp_path)
    assert caught.value.cause == "it is of the model other, not of tiny"
    path.rename(tuned.path_in(folder, "sm8550"))
    with pytest.raises(UsageError):
        tuned.find(recipe(tmp_path), "sm8550", tmp_path)


def test_there_is_no_choice_for_a_processor_that_was_not_tuned_or_has_no_name(
    tmp_path: Path,
) -> None:
    saved(tmp_path / "models" / "tiny")
    assert tuned.find(recipe(tmp_path), "sm8550", tmp_path) is None
    assert tuned.find(recipe(tmp_path), "", tmp_path) is None


def test_a_choice_lies_beside_the_recipe_or_in_the_workspace_where_that_is_not_ours(
    tmp_path: Path,
) -> None:
    own = tmp_path / "mine"
    own.mkdir()
    (own / "recipe.toml").touch()
    assert recipes.home(recipe(own), tmp_path) == own
    shipped = recipes.find("smollm2-135m-instruct", tmp_path)
    assert recipes.home(shipped, tmp_path) == tmp_path / "models" / shipped.name
    checkpoint = recipe(tmp_path / "downloads", "tiny")
    assert recipes.home(checkpoint, tmp_path) == tmp_path / "models" / "tiny"


def test_the_workspaces_choice_comes_before_the_one_that_ships(tmp_path: Path) -> None:
    shipped = recipe(tmp_path / "shipped")
    saved(shipped.folder, replace(KNOWN, rounds=7))
    workspace = tmp_path / "workspace"
    found, path = tuned.find(shipped, "sm8650", workspace) or pytest.fail("none")
    assert found.rounds == 7 and path.is_relative_to(shipped.folder)
    saved(workspace / "models" / "tiny")
    found, path = tuned.find(shipped, "sm8650", workspace) or pytest.fail("none")
    assert found.rounds == 5 and path.is_relative_to(workspace)


def test_a_full_disk_leaves_the_older_choice_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StageFailed) as caught:
        tuned.save(path, replace(KNOWN, rounds=9))
    assert caught.value.cause == "the disk is full" and "df -h" in caught.value.remedy
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_choice_says_what_it_is() -> None:
    assert str(Choice()) == "the defaults"
    assert str(Choice(threads=1)) == "1 thread"
    assert str(KNOWN.choice) == "3 threads, armv8.2-a+dotprod, tiles of 8 tokens"


def test_a_recipe_may_name_its_tile_and_plain_kernels_have_none(tmp_path: Path) -> None:
    text = (resources.path("models") / "smollm2-135m-instruct/recipe.toml").read_text()
    path = tmp_path / "recipe.toml"
    path.write_text(text.replace("[compile]", "[compile]\ntile = 6"))
    found = recipes.load(path)
    assert CompileOptions.of(found).code["tile"] == 6
    assert CompileOptions.of(found, {"opt_level": 1}).code["tile"] is None
    path.write_text(text.replace("[compile]", "[compile]\ntile = 5"))
    with pytest.raises(UsageError) as caught:
        recipes.load(path)
    assert "compile.tile is 5, it must be one of 2, 4, 6, 8" in caught.value.cause
