"""The engine's parts one by one, by JMH: time and allocation of each call.

    .venv/bin/python benchmarks/engine_parts.py

EngineParts.java has the benchmarks; what is given to this script behind `--` is given to JMH, such
as `-- sample` for those of the sampler.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import jvm

from harness import console, recipes

MAIN = "org.openjdk.jmh.Main"
# The order of the table, and what one call is.
LABELS = {
    "sampleGreedy": "sampler, a token: greedy",
    "sampleDrawn": "sampler, a token: temperature, top-k 40, top-p, penalties",
    "sampleNucleus": "sampler, a token: temperature, top-p",
    "detokenizeToken": "detokenizer, a token",
    "encodeText": "tokenizer, a text",
    "loadVocabulary": "tokenizer, reading the vocabulary",
    "encodeRecord": "LMX1, a record of 16 tokens",
    "makeGrammar": "JSON, the grammar of a vocabulary",
    "firstAnswer": "JSON, the grammar and an answer's masks",
    "laterAnswer": "JSON, an answer's masks that are known",
}


@click.command()
@click.argument("options", nargs=-1)
def main(options: tuple[str, ...]) -> None:
    """Run JMH with OPTIONS and print a table; its figures are of this machine only."""
    workspace = Path.cwd()
    engine = jvm.engine(recipes.find("smollm2-135m-instruct", workspace), workspace)
    jmh = jvm.library("jmh-core", "jmh-annotations")
    classes = (*engine.classes, *jmh)
    with (
        jvm.compiled(["EngineParts.java"], classes, jmh) as program,
        tempfile.TemporaryDirectory() as name,
        console.step("measure", "the engine's parts by JMH"),
    ):
        text = _text()
        (Path(name) / "text").write_text(text, encoding="utf-8")
        result = Path(name) / "result.json"
        properties = f"-Dtokenizer={engine.package / 'tokenizer.alc'} -Dtext={name}/text"
        arguments = ["-prof", "gc", "-rf", "json", "-rff", str(result)]
        arguments += ["-jvmArgsAppend", properties, *options]
        jvm.java(MAIN, [program, *classes], arguments)
        found = json.loads(result.read_text(encoding="utf-8"))
    _show(found, len(text.encode()))


def _text() -> str:
    """English prose with some code in it: this project's own documentation."""
    pages = sorted((jvm.HERE.parent / "docs").glob("*.md"))
    return "".join(page.read_text(encoding="utf-8") for page in pages)


def _show(found: list[dict[str, Any]], size: int) -> None:
    print("| what | µs | +- | bytes allocated |\n|-|-|-|-|")
    order = list(LABELS)
    by_name = {(_name(entry), *entry.get("params", {}).values()): entry for entry in found}
    for key in sorted(by_name, key=lambda key: (order.index(key[0]), len(str(key)), key)):
        score = by_name[key]["primaryMetric"]
        bytes_ = by_name[key]["secondaryMetrics"]["gc.alloc.rate.norm"]["score"]
        label = LABELS[key[0]] + "".join(f", vocabulary of {value}" for value in key[1:])
        if key[0] == "encodeText":
            label += f" of {size / 1e3:.0f} kB ({size / score['score']:.1f} MB/s)"
        error = float(score["scoreError"]) / score["score"]
        print(f"| {label} | {score['score']:,.2f} | {error:.0%} | {bytes_:,.0f} |")


def _name(entry: dict[str, Any]) -> str:
    return str(entry["benchmark"]).rpartition(".")[2]


if __name__ == "__main__":
    main()
