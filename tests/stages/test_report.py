"""Reports say what the raw samples hold, wherever they are shown."""

from __future__ import annotations

import itertools
import re
import shutil
import statistics
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import stats
from harness.errors import StageFailed, UsageError
from harness.stages.report import Report, plots, report, svg, table
from harness.store import runs

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"
MS = 1_000_000
ANSWER = "A week is approximately 7 days."


def step_records(step: str, begin: int, tokens: Sequence[int]) -> list[dict[str, Any]]:
    """The records of a step whose tokens come at these nanoseconds."""
    half = len(tokens) // 2
    batches = [(0, tokens[:half]), (half, tokens[half:])]
    return [
        {
            "t": "request",
            "step": step,
            "conversation": step,
            "start_ns": begin,
            "prompt_tokens": 40,
            "cached_tokens": 0,
        },
        {
            "t": "prefill",
            "step": step,
            "start_ns": begin + MS,
            "end_ns": begin + 101 * MS,
            "tokens": 40,
        },
        *(
            {
                "t": "tokens",
                "step": step,
                "first": first,
                "ids": list(range(first, first + len(stamps))),
                "ns": list(stamps),
            }
            for first, stamps in batches
            if stamps
        ),
        {"t": "finish", "step": step, "end_ns": begin, "reason": "stop", "tokens": len(tokens)},
    ]


def record(
    workspace: Path,
    answers: Sequence[tuple[str, str, Sequence[int]]] = (
        ("How many days are in a week?", ANSWER, (110 * MS, 130 * MS, 150 * MS, 200 * MS)),
    ),
    *,
    virtual: bool = True,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """A run of prompts: (prompt, text, nanoseconds of its tokens after the request)."""
    meta = {
        "schema": "harness.measurement/1",
        "model": "smollm2-135m-instruct",
        "quantization": "q4f16_gguf",
        "package": "7d" * 32,
        "device": "Virtual phone" if virtual else "Pixel 8",
        "serial": "127.0.0.1:6555",
        "fingerprint": "harness/phone/phone:14/1:user/release-keys",
        "api_level": 34,
        "memory_bytes": 4 << 30,
        "target": "arm64-v8a-glibc",
        "virtual": virtual,
        "boot_id": "b1",
        "protocol": {"door": 1, "sampling": "greedy", "template": True, "prompts": ["p"]},
        **(changes or {}),
    }
    begin = {
        "t": "begin",
        "proto": 1,
        "engine": "alc",
        "backend": "cpu/armv8.2-a+dotprod",
        "threads": 2,
        "package": "7d" * 32,
    }
    load = {"t": "load", "start_ns": 0, "end_ns": 350 * MS, "weights_bytes": 90_000_000}
    with runs.create_run(workspace, meta) as run:
        state = {"thermal_status": 0, "battery_celsius": 25.0, "capped": []}
        run.append("state", {"when": "before", **state})
        run.append("lmx", begin)
        run.append("lmx", load)
        steps = []
        for number, (prompt, text, stamps) in enumerate(answers, start=1):
            identifier = f"p{number}"
            start = number * 10**10
            for each in step_records(identifier, start, [start + ns for ns in stamps]):
                run.append("lmx", each)
            steps.append(
                {
                    "id": identifier,
                    "prompt": prompt,
                    "text": text,
                    "token_ids": list(range(len(stamps))),
                    "finish_reason": "stop",
                    "prompt_tokens": 40,
                    "cached_tokens": 0,
                }
            )
        run.append("lmx", {"t": "memory", "mono_ns": 1, "pss_kb": 412_000})
        memory = {"pss_kb": 390_000, "pss_peak_kb": 401_000, "kv_bytes_used": 1 << 20}
        run.append("result", {"steps": steps, "memory": memory})
        run.append("state", {"when": "after", **state})
        return run.finish({"repaired": 0}).path


def reported(path: Path) -> Report:
    return report(runs.open_run(path).value())


def test_every_figure_follows_its_definition(tmp_path: Path) -> None:
    document = reported(record(tmp_path)).document
    (prompt,) = document["prompts"]
    assert document["schema"] == "harness.run-report/1"
    assert prompt["text"] == ANSWER
    assert prompt["token_ids"] == [0, 1, 2, 3]
    assert prompt["prompt_tokens"] == 40
    assert prompt["load_ms"] == 350
    assert prompt["ttft_ms"] == 110
    assert prompt["prefill_tok_s"] == 400
    assert prompt["decode_tok_s"] == pytest.approx(3 / 0.090, abs=0.001)
    assert prompt["decode_ms_p50"] == 20
    assert prompt["decode_ms_p95"] == pytest.approx(stats.percentile([20, 20, 50], 95))
    assert prompt["pss_peak_kb"] == 412_000


@pytest.mark.parametrize(("stamps", "ttft"), [((), None), ((5 * MS,), 5)])
def test_an_answer_of_no_or_one_token_has_no_decode_figures(
    tmp_path: Path, stamps: Sequence[int], ttft: float | None
) -> None:
    made = reported(record(tmp_path, [("p", "", stamps)]))
    (prompt,) = made.document["prompts"]
    assert prompt["ttft_ms"] == ttft
    assert prompt["decode_tok_s"] is prompt["decode_ms_p50"] is prompt["decode_ms_p95"] is None
    assert "<svg" not in made.page.read_text()


def test_every_number_of_a_virtual_phone_says_so(tmp_path: Path) -> None:
    made = reported(record(tmp_path))
    assert made.document["virtual"] is True
    for prompt in made.document["prompts"]:
        assert (prompt["virtual"], prompt["device"]) == (True, "virtual phone")
    assert made.text().splitlines()[-1].endswith("virtual phone")
    page = made.page.read_text()
    tiles = re.findall(r'<div class="tile">.*?</div></div>', page)
    assert len(tiles) == 7
    assert all("virtual phone" in tile for tile in tiles)
    for plot in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        assert "ms, virtual phone" in plot or "ms for each token, virtual phone" in plot


def test_a_phone_is_called_by_its_name_and_never_virtual(tmp_path: Path) -> None:
    made = reported(record(tmp_path, virtual=False))
    assert made.document["device"] == "Pixel 8"
    assert "virtual" not in made.text()
    assert "virtual phone" not in made.page.read_text()


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    page = reported(record(tmp_path)).page.read_text()
    assert not re.search(r"https?:|src=|@import|url\(|<script|<link", page)
    assert "prefers-color-scheme: dark" in page


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "</p><img src=x onerror=alert(1)>",
        "{{ 7 * 7 }}{% raw %}",
        "\"'><svg onload=alert(1)>",
        "\x1b[2J\x07 week",
    ],
)
def test_what_a_model_or_a_device_says_is_only_ever_text(tmp_path: Path, hostile: str) -> None:
    changes = {"model": hostile, "device": hostile, "fingerprint": hostile}
    answers = [(hostile, hostile, (MS, 2 * MS, 3 * MS))]
    made = reported(record(tmp_path, answers, virtual=False, changes=changes))
    parser = _Text()
    parser.feed(made.page.read_text())
    assert not parser.tags & {"script", "img", "iframe"}
    assert hostile in "".join(parser.texts)
    assert "\x1b" not in made.text()
    assert "\x1b[2J" not in made.text(color=True)


def test_the_terminal_and_plain_tables_hold_the_same_cells(tmp_path: Path) -> None:
    made = reported(record(tmp_path))
    plain = made.text()
    colored = re.sub(r"\x1b\[[\d;]*m", "", made.text(color=True, width=120))
    for cell in table.rows(made.figures)[0]:
        assert cell in plain
        assert cell in colored
    assert ANSWER in plain and ANSWER in colored
    assert "\x1b" not in plain


def test_reporting_again_gives_the_same(tmp_path: Path) -> None:
    path = record(tmp_path)
    first = reported(path)
    page = first.page.read_bytes()
    assert reported(path).document == first.document
    assert first.page.read_bytes() == page


def test_a_recorded_run_of_the_virtual_phone_gives_the_figures_of_its_records(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(TRANSCRIPTS / "run-virtual-phone", folder)
    made = reported(folder)
    (prompt,) = made.document["prompts"]
    stamps = [30197904, 67020710, 93343042, 132221045, 156432378, 181858541, 209787242, 233226747]
    assert prompt["text"] == ANSWER
    assert prompt["token_ids"] == [49, 2605, 314, 4723, 216, 39, 2009, 30]
    assert prompt["load_ms"] == pytest.approx((9064406136 - 8680216421) / MS, abs=0.001)
    assert prompt["ttft_ms"] == pytest.approx((9330197904 - 9091836748) / MS, abs=0.001)
    assert prompt["prefill_tok_s"] == pytest.approx(38e9 / (9322312897 - 9122583517), abs=0.001)
    assert prompt["decode_tok_s"] == pytest.approx(7e9 / (stamps[-1] - stamps[0]), abs=0.001)
    intervals = [(later - earlier) / MS for earlier, later in itertools.pairwise(stamps)]
    assert prompt["decode_ms_p50"] == pytest.approx(statistics.median(intervals), abs=0.001)
    assert prompt["pss_peak_kb"] == 181_354


def test_a_run_that_broke_off_is_refused_with_its_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), runs.create_run(tmp_path, {}) as run:
        raise RuntimeError("the phone is gone")
    with pytest.raises(UsageError) as caught:
        reported(run.path)
    assert "the phone is gone" in caught.value.cause


def test_a_run_that_is_no_measurement_is_refused(tmp_path: Path) -> None:
    with runs.create_run(tmp_path, {"virtual": True, "device": "x"}) as run:
        run.append("lmx", {"t": "begin"})
        run.finish({})
    with pytest.raises(StageFailed, match="not those of a measurement"):
        reported(run.path)


def test_a_full_run_with_several_prompts_has_a_row_and_two_plots_for_each(tmp_path: Path) -> None:
    stamps = [100 * MS + number * 21 * MS + (number % 7) * MS for number in range(64)]
    answers = [(f"Prompt {number}", f"Text {number}", stamps) for number in range(5)]
    made = reported(record(tmp_path, answers))
    page = made.page.read_text()
    assert page.count("<svg") == 10
    assert len(table.rows(made.figures)) == 5
    assert "median of 5" in page


intervals = st.lists(st.floats(0.001, 1e5), min_size=1, max_size=400)


@given(intervals)
def test_plots_show_every_token_inside_their_frame(values: list[float]) -> None:
    drawn = plots.latency(values, "phone")
    (line,) = re.findall(r'<polyline[^>]*points="([^"]*)"', drawn)
    pairs = [tuple(map(float, pair.split(","))) for pair in line.split()]
    assert len(pairs) == len(values)
    assert all(plots.LEFT <= x <= plots.WIDTH and 0 <= y <= plots.HEIGHT for x, y in pairs)
    histogram = plots.distribution(values, "phone")
    counts = [int(count) for count in re.findall(r">(\d+) tokens from", histogram)]
    assert sum(counts) == len(values)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 12))
def test_ticks_are_few_ordered_and_inside(low: float, span: float, count: int) -> None:
    marks = svg.ticks(low, low + span, count)
    assert len(marks) <= count + 1
    assert marks == sorted(set(marks))
    assert all(low - span * 1e-6 <= mark <= low + span * (1 + 1e-6) for mark in marks)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"])))
def test_any_text_survives_in_svg(text: str) -> None:
    parsed = ET.fromstring(svg.element("text", text=text, title=text))
    assert parsed.text == (text or None)
    assert parsed.get("title") == text
