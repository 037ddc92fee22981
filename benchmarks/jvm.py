"""The engine on this machine's JVM, for benchmarks that need no phone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import process, resources
from harness.compiler.options import CompileOptions
from harness.recipes import Recipe
from harness.stages.build import build
from harness.stages.compile import compile_model
from harness.stages.package.direct import Jars, compile_kotlin
from harness.tools import jdk, maven
from harness.types import Abi, Libc, Target

HERE = Path(__file__).parent
TEMPLATE = resources.path("android-template")


@dataclass(frozen=True)
class Engine:
    """A compiled model, the native runtime for this machine, and the compiled Kotlin."""

    package: Path
    library: Path
    jars: Jars

    @property
    def classes(self) -> tuple[Path, ...]:
        return (*self.jars.own, *self.jars.libraries)


def engine(recipe: Recipe, workspace: Path) -> Engine:
    """Everything that the engine needs to run `recipe` here; what is there already is taken."""
    package = compile_model(recipe, CompileOptions.of(recipe, {}), (Abi.X86_64,), workspace)
    runtime = build(Target(Abi.X86_64, Libc.GLIBC), workspace)
    return Engine(package.path, runtime.library, compile_kotlin(TEMPLATE, workspace))


def library(*names: str) -> tuple[Path, ...]:
    """The jars of libraries of the version catalog, with what they need."""
    return maven.resolve(TEMPLATE, names)


@contextmanager
def compiled(
    sources: Sequence[str], classes: Sequence[Path], processors: Sequence[Path] = ()
) -> Iterator[Path]:
    """A folder of what `javac` makes of Java files that lie here, as long as it is used."""
    with tempfile.TemporaryDirectory() as name:
        options: list[str | Path] = ["-d", name, "-cp", joined(classes), "-Xlint:all", "-Werror"]
        options += ["-processorpath", joined(processors)] if processors else ["-proc:none"]
        javac = [jdk.find().javac, *options, *(HERE / source for source in sources)]
        process.run(javac, timeout=300)
        yield Path(name)


def java(
    main: str,
    classes: Sequence[Path],
    arguments: Sequence[str | Path],
    options: Sequence[str] = (),
    on_line: Callable[[str], None] | None = None,
) -> str:
    """What the program `main` prints; `on_line` gets each line as it comes."""
    argv = [jdk.find().java, *options, "-cp", joined(classes), main, *arguments]
    return process.run(argv, on_line=on_line, timeout=3600).stdout


def joined(classes: Sequence[Path]) -> str:
    """A class path."""
    return ":".join(str(path) for path in classes)
