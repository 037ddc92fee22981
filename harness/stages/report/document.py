"""The report as one JSON document, for scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.stages.report.figures import Figures, PromptFigures
from harness.stats import PERCENTILE_METHOD

SCHEMA = "harness.run-report/1"


def document(figures: Figures, run: Path, page: Path) -> dict[str, Any]:
    """Every figure of a run by name; times in the unit that ends a name.

    "virtual" and "device" stand beside each prompt's numbers as well, so that none is taken for a
    phone's when it is not.
    """
    meta = figures.meta
    return {
        "schema": SCHEMA,
        "run": figures.run,
        "started_utc": figures.started_utc,
        "virtual": figures.virtual,
        "device": figures.device,
        **{name: meta.get(name) for name in ("model", "quantization", "package", "target")},
        "engine": dict(figures.engine),
        "phone": {
            "name": meta.get("device"),
            **{
                name: meta.get(name)
                for name in ("serial", "fingerprint", "api_level", "memory_bytes", "boot_id")
            },
        },
        "protocol": meta.get("protocol"),
        "state": dict(figures.states),
        "load_ms": _rounded(figures.load_ms),
        "weights_bytes": figures.weights_bytes,
        "pss_peak_kb": figures.pss_peak_kb,
        "kv_bytes_used": figures.kv_bytes_used,
        "percentile_method": PERCENTILE_METHOD,
        "records": figures.records,
        "repaired": figures.repaired,
        "prompts": [_prompt(figures, prompt) for prompt in figures.prompts],
        "files": {"run": str(run), "html": str(page)},
    }


def _prompt(figures: Figures, prompt: PromptFigures) -> dict[str, Any]:
    return {
        "id": prompt.id,
        "prompt": prompt.prompt,
        "text": prompt.text,
        "token_ids": list(prompt.token_ids),
        "finish_reason": prompt.finish_reason,
        "prompt_tokens": prompt.prompt_tokens,
        "cached_tokens": prompt.cached_tokens,
        "load_ms": _rounded(figures.load_ms),
        "ttft_ms": _rounded(prompt.ttft_ms),
        "prefill_tok_s": _rounded(prompt.prefill_tok_s),
        "decode_tok_s": _rounded(prompt.decode_tok_s),
        "decode_ms_p50": _rounded(prompt.decode_ms_p50),
        "decode_ms_p95": _rounded(prompt.decode_ms_p95),
        "decode_ms_mad": _rounded(prompt.decode_ms_mad),
        "pss_peak_kb": figures.pss_peak_kb,
        "virtual": figures.virtual,
        "device": figures.device,
    }


def _rounded(value: float | None) -> float | None:
    """Three decimals: microseconds, finer than any clock here."""
    return None if value is None else round(value, 3)
