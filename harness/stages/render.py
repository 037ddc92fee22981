"""render: an ordinary Gradle project of the app, with the prebuilt native runtime inside."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import harness
from harness import console, files, resources
from harness.errors import StageFailed
from harness.store import artifacts
from harness.tools import android_project
from harness.types import Project, RuntimeBundle

STAGE = "render"
APPLICATION_ID = "dev.alc.harness"
_TEMPLATE_SUFFIX = ".j2"
# What building leaves behind, and the C++ that the build stage has compiled already.
_LEFT_OUT_FOLDERS = {"build", "target", ".gradle", ".idea", ".kotlin", "cpp"}
_LEFT_OUT_FILES = {"local.properties"}


def render(bundle: RuntimeBundle, workspace: Path) -> Project:
    """Render the Gradle project that carries this runtime, or return the one that is there.

    Raises `StageFailed` when a template asks for a value that there is not, or the disk is full.
    """
    template = resources.path("android-template")
    sources = {str(name): template / name for name in _sources(template)}
    values = _values(bundle)
    inputs = {
        "template": {name: files.sha256_file(path) for name, path in sources.items()},
        "values": values,
    }

    def work(folder: Path) -> Mapping[str, object]:
        with console.step(STAGE, f"Gradle project for {bundle.target}") as step:
            project = folder / "project"
            for name, path in sources.items():
                _place(path, project / name, values)
            libraries = project / android_project.LIBRARIES / bundle.target.abi
            libraries.mkdir(parents=True)
            shutil.copyfile(bundle.library, libraries / bundle.library.name)
            android_project.write_facts(project, values)
            step.done(f"Gradle project for {bundle.target}, {len(sources)} files")
        return {"files": len(sources)}

    made = artifacts.produce(workspace, STAGE, inputs, work)
    return Project(made.path / "project", made.key, APPLICATION_ID, bundle.target)


def _values(bundle: RuntimeBundle) -> dict[str, str | int]:
    """What templates may name."""
    return {
        "application_id": APPLICATION_ID,
        "version_name": harness.__version__,
        "version_code": version_code(harness.__version__),
        "abi": str(bundle.target.abi),
        "libc": str(bundle.target.libc),
        "runtime_sha256": files.sha256_file(bundle.library),
    }


def version_code(version: str) -> int:
    """Android's number for a version: 1.2.3 is 10203, so that newer versions have higher ones."""
    from packaging.version import Version

    major, minor, micro = (*Version(version).release, 0, 0)[:3]
    return max(1, major * 10_000 + minor * 100 + micro)


def _sources(template: Path) -> Iterator[PurePosixPath]:
    """The template's files, relative and in order, without what a build left there."""
    for path in sorted(template.rglob("*")):
        name = path.relative_to(template)
        left_out = _LEFT_OUT_FOLDERS.intersection(name.parts) or name.name in _LEFT_OUT_FILES
        if path.is_file() and not left_out:
            yield PurePosixPath(name)


def _place(source: Path, target: Path, values: Mapping[str, str | int]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix != _TEMPLATE_SUFFIX:
        shutil.copyfile(source, target)
        return
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    try:
        text = environment.from_string(source.read_text(encoding="utf-8")).render(values)
    except jinja2.TemplateError as problem:
        raise StageFailed(
            f"cannot render {source.name}",
            cause=str(problem),
            remedy=f"correct {source}; it may name {', '.join(values)}",
        ) from problem
    files.write_text(target.with_suffix(""), text)
