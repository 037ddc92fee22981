"""The project as a wheel: what a user of PyPI would get."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    made = subprocess.run(
        [*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], capture_output=True, text=True
    )
    if made.returncode != 0 and "hatchling" in made.stderr:
        pytest.skip("pip cannot fetch the build backend without a network")
    assert made.returncode == 0, made.stderr
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder / "site"


def python(installed: Path, cwd: Path, code: str) -> str:
    """Run code that sees the wheel and not the checkout, from a folder of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(installed)!r}); {code}"],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_carries_template_recipes_and_device_tests(
    installed: Path, tmp_path: Path
) -> None:
    for name in (
        "android-template/gradle/libs.versions.toml",
        "android-template/runtime/src/main/cpp/CMakeLists.txt",
        "models/smollm2-135m-instruct/recipe.toml",
        "device-tests/pytest.ini",
    ):
        code = f"from harness import resources; print(resources.path({name!r}))"
        assert python(installed, tmp_path, code).startswith(str(installed))


def test_the_wheel_works_from_any_folder(installed: Path, tmp_path: Path) -> None:
    code = "from harness import cli; sys.exit(cli._run(['models', 'list']))"
    assert "smollm2-135m-instruct" in python(installed, tmp_path, code)
