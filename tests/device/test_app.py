"""The door to the app: what it asks, and what it makes of every way an answer can go wrong."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from harness.device import call
from harness.device.app import App, Step
from harness.device.failures import AppError
from harness.errors import DeviceError, TimingsIncomplete

STEPS = [Step("p1", "Hello")]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "LAG_SECONDS", 0.3)
    monkeypatch.setattr(call, "POLL_SECONDS", 0.02)


def app(phone: Any, **arguments: Any) -> App:
    return App(phone, model="/data/local/tmp/harness/models/k.json", **arguments)


def test_an_answer_comes_with_all_its_records(phone: Any) -> None:
    records: list[Any] = []
    statuses: list[str] = []
    reply = app(phone, on_record=records.append, on_status=statuses.append).generate(STEPS)
    assert reply.result["steps"][0]["token_ids"] == [5, 6, 7, 8]
    assert [record["t"] for record in reply.records] == [
        "begin",
        "tokens",
        "tokens",
        "finish",
        "end",
    ]
    assert reply.repaired == 0 and list(reply.records) == records
    assert statuses == ["generating"]


def test_the_request_says_everything(phone: Any) -> None:
    asked: list[dict[str, Any]] = []
    play = phone.script
    phone.script = lambda self, request: (asked.append(request), play(self, request))
    app(phone, threads=3, context=512, cpu_variant="armv8-a").generate(
        [Step("p1", "Hello", stop_after=2)]
    )
    request = asked[0]
    assert request["schema"] == "harness.request/1" and request["protocol"] == 1
    assert request["run"] == phone.run and request["verb"] == "generate"
    assert request["threads"] == 3 and request["context"] == 512
    assert request["cpu_variant"] == "armv8-a"
    assert request["steps"][0]["stop_after"] == 2 and request["steps"][0]["template"] is True


def test_a_steps_options_reach_the_app(phone: Any) -> None:
    asked: list[dict[str, Any]] = []
    play = phone.script
    phone.script = lambda self, request: (asked.append(request), play(self, request))
    options: dict[str, Any] = {
        "min_p": 0.1,
        "typical_p": 0.9,
        "frequency_penalty": -1.0,
        "presence_penalty": 2.0,
        "logit_bias": {7: -math.inf, 9: 1.5},
        "stop": ["x", "yz"],
        "response_format": "json",
        "context_policy": "drop_oldest_turns",
    }
    app(phone).generate([Step("p1", "Hello", **options)])
    step = asked[0]["steps"][0]
    expected = {**options, "logit_bias": {"7": -math.inf, "9": 1.5}}
    assert {name: step[name] for name in options} == expected


def test_a_request_that_the_app_cannot_read_has_its_kind(phone: Any) -> None:
    def play(self: Any, request: dict[str, Any]) -> None:
        self.instrument(
            "INSTRUMENTATION_RESULT: error=invalid-request: no request: at $.steps[0]",
            "INSTRUMENTATION_RESULT: ok=false",
            "INSTRUMENTATION_CODE: -1",
        )
        self.am.queue.put(None)

    phone.script = play
    with pytest.raises(AppError) as raised:
        app(phone).generate([Step("p1", "Hello", max_tokens="many")])  # type: ignore[arg-type]
    assert raised.value.kind == "invalid-request"
    assert raised.value.cause == "invalid-request: no request: at $.steps[0]"


def test_nothing_is_left_on_the_device(phone: Any) -> None:
    app(phone).generate(STEPS)
    assert phone.files == {}


@pytest.mark.parametrize("lost", [" 0 1/1 ", " 2 1/1 ", " 4 1/1 "])
def test_records_that_logcat_lost_are_repaired_from_the_file(phone: Any, lost: str) -> None:
    phone.lose = lambda line: lost in line
    reply = app(phone).generate(STEPS)
    assert len(reply.records) == 5 and reply.repaired == 1


def test_records_that_are_lost_for_good_are_not_hidden(phone: Any) -> None:
    def play(self: Any, request: dict[str, Any]) -> None:
        self.lose = lambda line: " 2 1/1 " in line
        self.record({"t": "begin", "proto": 1, "run": self.run})
        for number in range(3):
            self.record({"t": "memory", "pss_kb": number})
        self.end()
        self.files[f"{self.folder}/metrics.jsonl"] = b'{"t":"begin"}\n'
        self.result(verb="generate")
        self.finish()

    phone.script = play
    with pytest.raises(TimingsIncomplete) as raised:
        app(phone).generate(STEPS)
    assert "1 of 5 records" in raised.value.cause and raised.value.exit_code == 8


def test_timings_that_contradict_themselves_are_refused(phone: Any) -> None:
    def play(self: Any, request: dict[str, Any]) -> None:
        self.record({"t": "begin", "proto": 1, "run": self.run})
        self.record({"t": "finish", "step": "p1", "tokens": 4})
        self.end()
        self.result(verb="generate")
        self.finish()

    phone.script = play
    with pytest.raises(TimingsIncomplete, match="not complete"):
        app(phone).generate(STEPS)


def test_a_crash_is_told_with_its_report(phone: Any) -> None:
    def play(self: Any, request: dict[str, Any]) -> None:
        self.record({"t": "begin", "proto": 1, "run": self.run})
        self.log("AndroidRuntime", "FATAL EXCEPTION: main")
        self.log("AndroidRuntime", "java.lang.IllegalStateException: no")
        self.instrument(
            "INSTRUMENTATION_RESULT: shortMsg=Process crashed.", "INSTRUMENTATION_CODE: 0"
        )
        self.am.queue.put(None)

    phone.script = play
    with pytest.raises(DeviceError, match="crashed") as raised:
        app(phone).generate(STEPS)
    assert "IllegalStateException" in raised.value.cause and raised.value.exit_code == 5


def test_an_app_that_is_not_installed_is_said_so(phone: Any) -> None:
    text = (Path(__file__).parent.parent / "transcripts/instrument-missing.txt").read_text()

    def play(self: Any, request: dict[str, Any]) -> None:
        self.instrument(*text.splitlines())
        self.am.queue.put(None)

    phone.script = play
    with pytest.raises(DeviceError, match="not installed") as raised:
        app(phone).info()
    assert "harness deploy" in raised.value.remedy


def test_another_protocol_is_refused_with_the_apps_words(phone: Any) -> None:
    def play(self: Any, request: dict[str, Any]) -> None:
        self.instrument(
            "INSTRUMENTATION_RESULT: error=protocol: app speaks 2, host asked 1",
            "INSTRUMENTATION_RESULT: ok=false",
            "INSTRUMENTATION_CODE: -1",
        )
        self.am.queue.put(None)

    phone.script = play
    with pytest.raises(DeviceError, match="refused") as raised:
        app(phone).info()
    assert raised.value.cause == "protocol: app speaks 2, host asked 1"


def test_an_error_of_the_app_keeps_its_kind(phone: Any) -> None:
    def play(self: Any, request: dict[str, Any]) -> None:
        self.result(verb="load", ok=False, error={"kind": "damaged", "message": "shard 0"})
        self.finish(ok=False)

    phone.script = play
    with pytest.raises(AppError) as raised:
        app(phone).load()
    assert raised.value.kind == "damaged" and "shard 0" in raised.value.cause


@pytest.mark.parametrize(
    "fields", [{"run": "ffffffff"}, {"protocol": 2}, {"schema": "harness.result/2"}]
)
def test_a_result_of_something_else_is_not_taken(phone: Any, fields: dict[str, Any]) -> None:
    def play(self: Any, request: dict[str, Any]) -> None:
        self.result(verb="info", **fields)
        self.finish()

    phone.script = play
    with pytest.raises(DeviceError, match="not understood"):
        app(phone).info()


def test_a_connection_that_breaks_and_returns_costs_nothing(phone: Any) -> None:
    def play(self: Any, request: dict[str, Any]) -> None:
        self.record({"t": "begin", "proto": 1, "run": self.run, "pid": 1000})
        self.am.queue.put(self.gone())
        self.lose = lambda line: True
        self.record({"t": "memory", "pss_kb": 1})
        self.end()
        self.result(verb="info")

    phone.script = play
    reply = app(phone).info()
    assert phone.reconnected == 1 and reply.repaired == 2


@pytest.mark.parametrize(
    ("boot_id", "state", "words"),
    [("boot-2", "busy", "restarted"), ("boot-1", "dead", "broke in mid-run")],
)
def test_a_phone_that_returns_without_the_app_is_an_error(
    phone: Any, boot_id: str, state: str, words: str
) -> None:
    def play(self: Any, request: dict[str, Any]) -> None:
        self.boot_id, self.state = boot_id, state
        self.am.queue.put(self.gone())

    phone.script = play
    with pytest.raises(DeviceError, match=words):
        app(phone).info()


def test_an_app_that_hangs_is_stopped(phone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.device.app.SILENCE_SECONDS", 0.2)
    phone.script = lambda self, request: None
    with pytest.raises(DeviceError, match="was stopped") as raised:
        app(phone).info()
    assert phone.stopped and "no sign of life" in raised.value.cause


def test_logits_are_checked_by_their_hash(phone: Any, tmp_path: Path) -> None:
    data = bytes(range(32))
    described = {"sha256": hashlib.sha256(data).hexdigest()}

    def play(self: Any, request: dict[str, Any]) -> None:
        assert request["tokens"] == [1, 2]
        self.record({"t": "begin", "proto": 1, "run": self.run})
        self.end()
        self.files[f"{self.folder}/logits.f32"] = data
        self.result(verb="logits", logits=described)
        self.finish()

    phone.script = play
    app(phone).logits([1, 2], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == data
    described["sha256"] = "0" * 64
    with pytest.raises(DeviceError, match="not understood"):
        app(phone).logits([1, 2], tmp_path / "b")


def test_a_request_is_plain_json(phone: Any) -> None:
    play = phone.script

    def check(self: Any, request: dict[str, Any]) -> None:
        name = f"/data/local/tmp/harness/requests/{self.run}.json"
        assert json.loads(self.files[name])["steps"][0]["prompt"] == "grüß\n'x'"
        play(self, request)

    phone.script = check
    app(phone).generate([Step("p1", "grüß\n'x'")])
