"""What an app may count on, in figures. A virtual phone's speed is told and never fails a test."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.device.app import App, Step
from harness.device.call import Reply
from harness.lmx import Record
from harness.pytest_plugin import Model
from harness.types import Device

FIRST_TOKEN_MS = 100
"""From the end of prefill to the first token."""
DECODE_TOKENS_PER_SECOND = 10
FIRST_INFERENCE_MS = 5000
"""From a process without a model to the first token of its first answer."""
MEMORY_MIB = 2048
"""The app's process, for a model of what is called two billion parameters or fewer."""
PARAMETERS = 2_700_000_000

TOKENS = 24
Within = Callable[[str, float, float], None]


@pytest.fixture
def within(device: Device, record_property: Callable[[str, object], None]) -> Within:
    """`within(figure, its value, its limit)` fails where the value is larger, on a real phone."""

    def check(figure: str, value: float, limit: float) -> None:
        told = f"{figure} {value:.1f}, limit {limit:g}"
        if device.virtual:
            record_property("note", f"{told}; a virtual phone's speed says nothing of phones")
        else:
            assert value <= limit, told

    return check


@pytest.fixture(scope="module")
def reply(app: App) -> Reply:
    """The first answer of a new process."""
    return app.generate([Step("first", "Name three colours.", max_tokens=TOKENS, keep=False)])


def one(reply: Reply, kind: str) -> Record:
    return next(record for record in reply.records if record["t"] == kind)


def stamps(reply: Reply) -> list[int]:
    """When each token was there, in nanoseconds."""
    return [ns for record in reply.records if record["t"] == "tokens" for ns in record["ns"]]


def test_the_first_token_comes_soon_after_prefill(reply: Reply, within: Within) -> None:
    waited = (stamps(reply)[0] - one(reply, "prefill")["end_ns"]) / 1e6
    assert waited >= 0
    within("first token after prefill, ms", waited, FIRST_TOKEN_MS)


def test_tokens_come_faster_than_one_reads(reply: Reply, within: Within) -> None:
    times = stamps(reply)
    if len(times) < 2:
        pytest.skip("the answer has one token")
    seconds_each = (times[-1] - times[0]) / 1e9 / (len(times) - 1)
    within("ms a decoded token", seconds_each * 1e3, 1e3 / DECODE_TOKENS_PER_SECOND)


def test_the_first_inference_is_there_within_seconds(reply: Reply, within: Within) -> None:
    waited = (stamps(reply)[0] - one(reply, "load")["start_ns"]) / 1e6
    within("load to first token, ms", waited, FIRST_INFERENCE_MS)


def test_the_app_stays_inside_its_memory(reply: Reply, model: Model) -> None:
    parameters = model.facts()["parameters"]
    if parameters > PARAMETERS:
        pytest.skip(f"the limit is for smaller models: this one has {parameters:,} parameters")
    assert reply.result["memory"]["pss_peak_kb"] / 1024 < MEMORY_MIB
