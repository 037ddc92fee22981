"""The report as one HTML file that needs nothing else: no network, no script, no fonts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import console
from harness.stages.report import plots
from harness.stages.report.figures import Figures, PromptFigures
from harness.stages.report.table import HEADERS, number, rows, title
from harness.stats import PERCENTILE_METHOD, median

# android.os.PowerManager.THERMAL_STATUS_*
_THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


@dataclass(frozen=True)
class Tile:
    """One large figure."""

    name: str
    value: str
    unit: str
    note: str = ""


def html(figures: Figures) -> str:
    """The page; whatever the model or the device said is escaped."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        keep_trailing_newline=True,
    )
    prompts = [
        {
            "figures": prompt,
            "mad": number(prompt.decode_ms_mad),
            # Plots escape their texts themselves.
            "latency": Markup(_plot(plots.latency, prompt, figures)),
            "distribution": Markup(_plot(plots.distribution, prompt, figures)),
        }
        for prompt in figures.prompts
    ]
    return environment.get_template("page.html.j2").render(
        title=title(figures),
        figures=figures,
        tiles=list(_tiles(figures)),
        headers=HEADERS,
        rows=rows(figures),
        prompts=prompts,
        facts=list(_facts(figures)),
        method=PERCENTILE_METHOD,
    )


def _plot(draw: Any, prompt: PromptFigures, figures: Figures) -> str:
    return draw(prompt.decode_ms, figures.device) if prompt.decode_ms else ""


def _tiles(figures: Figures) -> Iterator[Tile]:
    prompts = figures.prompts
    note = "" if len(prompts) == 1 else f"median of {len(prompts)}"
    yield Tile("Load", number(figures.load_ms), "ms")
    for name, unit, values in (
        ("First token", "ms", [prompt.ttft_ms for prompt in prompts]),
        ("Prefill", "tok/s", [prompt.prefill_tok_s for prompt in prompts]),
        ("Decode", "tok/s", [prompt.decode_tok_s for prompt in prompts]),
        ("Decode p50", "ms", [prompt.decode_ms_p50 for prompt in prompts]),
        ("Decode p95", "ms", [prompt.decode_ms_p95 for prompt in prompts]),
    ):
        known = [value for value in values if value is not None]
        yield Tile(name, number(median(known) if known else None), unit, note)
    yield Tile("PSS peak", number(figures.pss_peak_mb), "MB")


def _facts(figures: Figures) -> Iterator[tuple[str, str]]:
    meta, engine = figures.meta, figures.engine
    protocol = meta.get("protocol") or {}
    yield "Device", f"{meta['device']} ({figures.device})" if figures.virtual else figures.device
    yield "Serial", str(meta.get("serial"))
    yield "Fingerprint", str(meta.get("fingerprint"))
    yield "Target", f"{meta.get('target')}, API {meta.get('api_level')}"
    if memory := meta.get("memory_bytes"):
        yield "Memory", console.size(memory)
    yield "Engine", f"{engine['engine']}, {engine['backend']}, {engine['threads']} threads"
    yield (
        "Model package",
        f"{meta.get('package')}, {console.size(figures.weights_bytes)} of weights",
    )
    if figures.kv_bytes_used is not None:
        yield "KV cache used", console.size(figures.kv_bytes_used)
    yield "Protocol", ", ".join(f"{name} {value}" for name, value in _protocol(protocol))
    yield "Boot id", str(meta.get("boot_id"))
    for when, state in figures.states.items():
        yield f"State {when}", _state(state)


def _protocol(protocol: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in protocol.items():
        if name != "prompts" and value is not None:
            yield name.replace("_", " "), str(value).lower() if isinstance(value, bool) else value


def _state(state: Mapping[str, Any]) -> str:
    """A device's condition in a line; what it did not tell is left out."""
    said = []
    thermal = state.get("thermal_status")
    if isinstance(thermal, int) and 0 <= thermal < len(_THERMAL):
        said.append(f"thermal status {_THERMAL[thermal]}")
    if state.get("battery_celsius") is not None:
        said.append(f"battery {state['battery_celsius']:g} °C")
    if state.get("battery_percent") is not None:
        charging = ", charging" if state.get("charging") else ""
        said.append(f"battery at {state['battery_percent']} %{charging}")
    if state.get("capped"):
        said.append("clock held down on CPUs " + ", ".join(map(str, state["capped"])))
    if state.get("memory_available_kb") is not None:
        said.append(f"{console.size(state['memory_available_kb'] * 1024)} of memory free")
    return " · ".join(said) or "not told"
