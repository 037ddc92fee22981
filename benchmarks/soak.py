"""A soak of the engine on a JVM and on the arm64 virtual phone: nothing grows, nothing differs.

    .venv/bin/python benchmarks/soak.py

Generations with options by chance, three conversations at once, with cancels, stops and slow
collectors; each answer is compared with the same request run alone (android-template's Soak.kt says
how). The model is tiny and random, so that most of the time is the engine's. On the JVM the heap
has one size from the start, and the second compiler, whose own memory comes and goes, is off: what
is left of PSS is what the engine takes.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import click
import jvm

from harness import config, console, files, recipes
from harness.config import Config
from harness.device.app import REQUEST_SCHEMA, App
from harness.device.call import PROTOCOL
from harness.device.soak import Soak
from harness.pipeline import Plan, Road
from harness.recipes import Recipe
from harness.types import Abi

GOLDEN = Path(__file__).parent.parent / "tests" / "goldens" / "llama-a"
TEMPLATE = (
    "{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
# The model's context window for each of the conversations.
CONTEXT = 3 * 512
# Steeper slopes, in KiB a generation, are growth and not noise.
PSS_KB, JAVA_KB = 4.0, 0.5
# An emulator keeps what it has translated, and goes on to translate after the app has settled.
EMULATED_PSS_KB = 32.0


def tiny_checkpoint(folder: Path) -> Path:
    """A golden's random weights, with a chat template."""
    shutil.copytree(GOLDEN, folder, dirs_exist_ok=True)
    files.write_json(folder / "tokenizer_config.json", {"chat_template": TEMPLATE})
    return folder


def on_jvm(recipe: Recipe, workspace: Path, generations: int, seed: int) -> Soak:
    """The app's own classes on this machine's JVM."""
    engine = jvm.engine(recipe, workspace)
    request = {
        "schema": REQUEST_SCHEMA,
        "protocol": PROTOCOL,
        "run": "00000000",
        "verb": "soak",
        "model": str(engine.package),
        "context": CONTEXT,
        "soak": {"generations": generations, "seed": seed},
    }
    steady = ["-Xms256m", "-Xmx256m", "-XX:+AlwaysPreTouch", "-XX:+UseSerialGC"]
    steady += ["-XX:TieredStopAtLevel=1"]
    with (
        jvm.compiled(["SoakOnJvm.java"], engine.classes) as program,
        tempfile.TemporaryDirectory() as name,
        console.step("soak", "on a JVM") as step,
    ):
        folder = Path(name)
        files.write_json(folder / "request.json", request)
        arguments = [engine.library, folder / "request.json", folder / "result"]
        classes = [program, *engine.classes]
        jvm.java("SoakOnJvm", classes, arguments, steady, on_line=step.update)
        result = json.loads((folder / "result/result.json").read_text(encoding="utf-8"))
    if not result["ok"]:
        raise click.ClickException(str(result["error"]))
    return Soak.of(result)


def on_phone(recipe: Recipe, settings: Config, generations: int, seed: int) -> Soak:
    """The installed app on the virtual phone."""
    road = Road(Plan.of(recipe, settings), settings)
    if road.plan.serial is not None:
        raise click.UsageError("unset ANDROID_SERIAL: this needs the virtual phone")
    installation = road.deploy
    with console.step("soak", f"on {installation.device}") as step:
        app = App(road.link, model=installation.stamp, context=CONTEXT, on_status=step.update)
        return app.soak(generations, seed=seed)


def show(where: str, soak: Soak, seconds: float, pss_kb: float = PSS_KB) -> list[str]:
    """Print a row of the table; what is wrong with the soak."""
    last = soak.samples[-1]
    cells = [where, soak.generations, soak.tokens, soak.differing]
    cells += [f"{soak.slope('pss_kb'):+.2f}", f"{soak.slope('java_kb'):+.3f}"]
    cells += [last["handles"], last["threads"], last["files"], f"{seconds:.0f}"]
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)
    return [f"{where}: {fault}" for fault in soak.faults(pss_kb=pss_kb, java_kb=JAVA_KB)]


@click.command()
@click.option("--jvm", default=1000, show_default=True, help="Generations on the JVM.")
@click.option("--phone", default=200, show_default=True, help="Generations on the phone.")
@click.option("--abi", default="arm64-v8a", show_default=True, help="The phone's.")
@click.option("--seed", default=0, show_default=True)
def main(jvm: int, phone: int, abi: str, seed: int) -> None:
    """Soak, print a table, and fail where an answer differs or something grows."""
    settings = config.load(Path.cwd(), {"device.abi": abi})
    recipe = recipes.find(
        str(tiny_checkpoint(settings.workspace / ".harness/soak/tiny")), Path.cwd()
    )
    print(
        "| where | generations | tokens | differing | PSS, KiB a generation "
        "| Java heap, KiB a generation | native handles | threads | files | s |\n"
        "|-|-|-|-|-|-|-|-|-|-|"
    )
    faults, counts = [], {}
    begun = time.monotonic()
    if jvm:
        soak = on_jvm(recipe, settings.workspace, jvm, seed)
        faults += show("JVM", soak, time.monotonic() - begun)
        counts["JVM"] = soak.counts
    begun = time.monotonic()
    if phone:
        soak = on_phone(recipe, settings, phone, seed)
        limit = EMULATED_PSS_KB if Abi(abi) is Abi.ARM64 else PSS_KB
        faults += show(f"{abi} virtual phone", soak, time.monotonic() - begun, limit)
        counts[abi] = soak.counts
    for where, kinds in counts.items():
        print(f"\n{where}: {', '.join(f'{name} {count}' for name, count in kinds.items())}")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
