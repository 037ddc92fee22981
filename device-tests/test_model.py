"""The model loads on the device, and its tokenizer is the reference's."""

from __future__ import annotations

from typing import Any

import pytest

from harness.device.app import App
from harness.pytest_plugin import Model
from harness.types import Device

TEXTS = [
    "Hello, how are you?",
    "  two spaces, a tab\tand\nlines\r\n",
    "naïve café, 東京, Привет, 👩‍👩‍👧 3.14159 and 1234567890",
    "def f(x): return x**2  # it's",
]


@pytest.fixture(scope="module")
def loaded(app: App) -> dict[str, Any]:
    """What the app says after one load."""
    return dict(app.load(TEXTS).result)


def test_the_model_loads(loaded: dict[str, Any], model: Model, device: Device) -> None:
    info, load = loaded["info"], loaded["load"]
    assert info["model"] == model.name and info["quantization"] == model.quantization
    assert info["abi"] == device.abi
    assert load["ns"] > 0 and load["weights_bytes"] > 0 and load["kv_bytes"] > 0


@pytest.mark.parametrize("index", range(len(TEXTS)))
def test_text_becomes_the_reference_tokenizers_ids_and_back(
    loaded: dict[str, Any], model: Model, index: int
) -> None:
    reference = model.tokenizer()
    told = loaded["texts"][index]
    assert told["text"] == TEXTS[index]
    assert told["token_ids"] == reference.encode(TEXTS[index]).ids
    assert told["decoded"] == TEXTS[index]
