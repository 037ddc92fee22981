"""Golden answers and where a device may leave them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import golden
from harness.errors import UsageError

ANSWER = golden.Answer("p", True, (1,), (5, 6, 7), (3.0, 0.1, 2.0))


def test_equal_tokens_do_not_differ() -> None:
    assert golden.difference(ANSWER, [5, 6, 7]) is None


def test_a_difference_where_the_reference_hesitates_is_allowed_and_told() -> None:
    found = golden.difference(ANSWER, [5, 9, 9])
    assert found == golden.Difference(1, 6, 9, 0.1, allowed=True)
    assert "token 1 is 9" in str(found)


@pytest.mark.parametrize("actual", [[9, 6, 7], [5, 6, 9], [5, 6], [5, 6, 7, 8], []])
def test_any_other_difference_is_not(actual: list[int]) -> None:
    found = golden.difference(ANSWER, actual)
    assert found is not None and not found.allowed


def test_answers_are_read(tmp_path: Path) -> None:
    one = {
        "prompt": "p",
        "template": True,
        "prompt_token_ids": [1],
        "token_ids": [5, 6, 7],
        "leads": [3.0, 0.1, 2.0],
    }
    path = tmp_path / "golden.json"
    path.write_text(json.dumps({"schema": golden.SCHEMA, "answers": [one]}))
    assert golden.load(path) == (ANSWER,)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": "harness.golden/1"}', '{"schema": 1}']
)
def test_what_holds_no_answers_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "golden.json"
    path.write_text(text)
    with pytest.raises(UsageError):
        golden.load(path)


def test_golden_answers_hold_for_forms_that_keep_the_weights() -> None:
    assert golden.holds_for("q0f32") and golden.holds_for("q4f16_gguf")
    assert not golden.holds_for("q4f32_1") and not golden.holds_for("q4f16_1")
