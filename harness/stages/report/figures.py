"""The figures of a run, derived from its raw samples and from nothing else.

Definitions, all in the device's monotonic clock:

* load: from the beginning to the end of loading the model;
* TTFT: from the request to the moment when its first token was there;
* prefill rate: prompt tokens computed, by the time of computing them;
* decode interval k: from token k-1 to token k, for k >= 1;
* decode rate: (n - 1) tokens by the time from the first to the last;
* PSS peak: the most memory (proportional set size) that the app saw itself use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from harness import stats
from harness.errors import StageFailed
from harness.store.runs import Sample, StoredRun

NS_PER_MS = 1e6
NS_PER_S = 1e9
VIRTUAL = "virtual phone"


@dataclass(frozen=True)
class PromptFigures:
    """One prompt: what was asked, what came, and how long it took.

    What cannot be said is None: a rate of no tokens, intervals of fewer than two.
    """

    id: str
    prompt: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    ttft_ms: float | None
    prefill_tok_s: float | None
    decode_tok_s: float | None
    decode_ms: tuple[float, ...]

    @property
    def decode_ms_p50(self) -> float | None:
        """The median decode interval."""
        return stats.percentile(self.decode_ms, 50) if self.decode_ms else None

    @property
    def decode_ms_p95(self) -> float | None:
        """The decode interval that 95 % of the tokens do not exceed."""
        return stats.percentile(self.decode_ms, 95) if self.decode_ms else None

    @property
    def decode_ms_mad(self) -> float | None:
        """The median absolute deviation of the decode intervals."""
        return stats.mad(self.decode_ms) if self.decode_ms else None


@dataclass(frozen=True)
class Figures:
    """Everything that a report of a run says."""

    run: str
    started_utc: str
    meta: Mapping[str, Any]
    engine: Mapping[str, Any]
    states: Mapping[str, Mapping[str, Any]]
    load_ms: float
    weights_bytes: int
    pss_peak_kb: int
    kv_bytes_used: int | None
    records: int
    repaired: int
    prompts: tuple[PromptFigures, ...]

    @property
    def virtual(self) -> bool:
        """Whether the numbers come from a virtual phone, which is no measure of real ones."""
        return bool(self.meta["virtual"])

    @property
    def pss_peak_mb(self) -> float:
        """The peak in megabytes; the kernel's kB are of 1024 bytes."""
        return self.pss_peak_kb * 1024 / 1e6

    @property
    def device(self) -> str:
        """The device's name for people; a virtual phone is always called one."""
        return VIRTUAL if self.virtual else str(self.meta["device"])


def derive(run: StoredRun) -> Figures:
    """The figures of a finished run.

    Raises `StageFailed` if its samples are damaged or are not those of a measurement.
    """
    try:
        return _derive(run, run.samples())
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
        cause = f"they lack {problem}" if isinstance(problem, KeyError) else str(problem)
        raise StageFailed(
            f"the samples of run {run.id} are not those of a measurement",
            cause=cause,
            remedy="harness measure",
        ) from problem


def _derive(run: StoredRun, samples: Sequence[Sample]) -> Figures:
    lmx = [sample.record for sample in samples if sample.kind == "lmx"]
    (result,) = (sample.record for sample in samples if sample.kind == "result")
    states = {str(s.record["when"]): s.record for s in samples if s.kind == "state"}
    (begin,) = _of(lmx, "begin")
    (load,) = _of(lmx, "load")
    memory = [record["pss_kb"] for record in _of(lmx, "memory")]
    reported = result.get("memory") or {}
    return Figures(
        run=run.id,
        started_utc=run.started_utc,
        meta=run.meta,
        engine={name: begin[name] for name in ("engine", "backend", "threads", "package")},
        states=states,
        load_ms=(load["end_ns"] - load["start_ns"]) / NS_PER_MS,
        weights_bytes=int(load["weights_bytes"]),
        pss_peak_kb=max([int(reported["pss_peak_kb"]), *memory]),
        kv_bytes_used=reported.get("kv_bytes_used"),
        records=len(lmx),
        repaired=int(run.summary.get("repaired", 0)),
        prompts=tuple(_prompt(step, lmx) for step in result["steps"]),
    )


def _prompt(step: Mapping[str, Any], lmx: Sequence[Mapping[str, Any]]) -> PromptFigures:
    identifier = str(step["id"])
    own = [record for record in lmx if record.get("step") == identifier]
    (request,) = _of(own, "request")
    prefill = list(_of(own, "prefill"))
    stamps = [int(ns) for record in _of(own, "tokens") for ns in record["ns"]]
    intervals = tuple((later - earlier) / NS_PER_MS for earlier, later in pairwise(stamps))
    span = stamps[-1] - stamps[0] if stamps else 0
    return PromptFigures(
        id=identifier,
        prompt=str(step["prompt"]),
        text=str(step["text"]),
        token_ids=tuple(int(token) for token in step["token_ids"]),
        finish_reason=str(step["finish_reason"]),
        prompt_tokens=int(step["prompt_tokens"]),
        cached_tokens=int(step["cached_tokens"]),
        ttft_ms=(stamps[0] - request["start_ns"]) / NS_PER_MS if stamps else None,
        prefill_tok_s=_rate(
            sum(record["tokens"] for record in prefill),
            sum(record["end_ns"] - record["start_ns"] for record in prefill),
        ),
        decode_tok_s=_rate(len(intervals), span),
        decode_ms=intervals,
    )


def _of(records: Iterable[Mapping[str, Any]], kind: str) -> Iterable[Mapping[str, Any]]:
    return (record for record in records if record["t"] == kind)


def _rate(tokens: int, ns: int) -> float | None:
    return tokens / (ns / NS_PER_S) if tokens > 0 and ns > 0 else None
