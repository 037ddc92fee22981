"""Make a model's golden.json: greedy answers of the float32 reference, and how sure it was.

    .venv/bin/python scripts/make_goldens.py smollm2-135m-instruct

Prompts stand in golden-prompts.toml beside the recipe. The tokenizer is Hugging Face's library
and the chat template is rendered by Jinja, so that neither is the engine's own. An answer has at
most 64 tokens; the token that ends it is not part of it.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import click
import numpy as np
from tokenizers import Tokenizer

from harness import console, files, recipes
from harness.compiler.checkpoints.checkpoint import Checkpoint
from harness.compiler.checkpoints.opening import open_checkpoint
from harness.compiler.numerics.evaluate import Evaluator, reference
from harness.compiler.sources.source import checkpoint_hash, checkpoint_path
from harness.compiler.templates import chat_template
from harness.compiler.tokenization.tokenizer import to_hugging_face
from harness.compiler.weights import end_tokens
from harness.golden import SCHEMA

TOKENS = 64


def prompt_tokens(checkpoint: Checkpoint, text: str, template: bool) -> list[int]:
    """The ids of a prompt: one chat turn by the model's template, or the text itself."""
    source = checkpoint.tokenizer
    assert not source.add_bos, "a text on its own would begin with BOS"
    if template:
        jinja = chat_template.environment().from_string(source.chat_template or "")
        text = jinja.render(
            messages=[{"role": "user", "content": text}],
            add_generation_prompt=True,
            **chat_template.special_tokens(source),
        )
    ids: list[int] = tokenizer_of(checkpoint).encode(text).ids
    return ids


def tokenizer_of(checkpoint: Checkpoint) -> Tokenizer:
    """The checkpoint's tokenizer as Hugging Face's library runs it."""
    return Tokenizer.from_str(json.dumps(to_hugging_face(checkpoint.tokenizer)))


def answer(model: Evaluator, prompt: list[int], ends: list[int]) -> tuple[list[int], list[float]]:
    """Greedy tokens up to the end of the answer, and by how much each led the next best."""
    model.reset()
    tokens: list[int] = []
    leads: list[float] = []
    logits = model.forward(prompt)[-1]
    while len(tokens) < TOKENS:
        second, first = np.partition(logits, -2)[-2:]
        best = int(logits.argmax())
        if best in ends:
            break
        tokens.append(best)
        leads.append(round(float(first - second), 4))
        logits = model.forward([best])[-1]
    return tokens, leads


@click.command()
@click.argument("model")
def main(model: str) -> None:
    """Write golden.json of MODEL."""
    recipe = recipes.find(model, Path.cwd())
    checkpoint = open_checkpoint(checkpoint_path(recipe))
    prompts = tomllib.loads((recipe.folder / "golden-prompts.toml").read_text(encoding="utf-8"))
    evaluator, ends = reference(checkpoint), end_tokens(checkpoint.tokenizer)
    answers: list[dict[str, Any]] = []
    with console.step("golden", f"answers of {recipe.name} in float32") as step:
        for entry in prompts["prompt"]:
            template = entry.get("template", True)
            prompt = prompt_tokens(checkpoint, entry["text"], template)
            tokens, leads = answer(evaluator, prompt, ends)
            answers.append(
                {
                    "prompt": entry["text"],
                    "template": template,
                    "prompt_token_ids": prompt,
                    "text": tokenizer_of(checkpoint).decode(tokens),
                    "token_ids": tokens,
                    "leads": leads,
                }
            )
            step.progress(len(answers), len(prompts["prompt"]), "prompts")
    document = {"schema": SCHEMA, "checkpoint": checkpoint_hash(recipe), "answers": answers}
    files.write_json(recipe.folder / "golden.json", document)


if __name__ == "__main__":
    main()
