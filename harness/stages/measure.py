"""measure: run prompts through the app and keep every raw sample; figures are derived elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import console
from harness.device import state
from harness.device.app import App, Step
from harness.device.call import PROTOCOL, Reply
from harness.device.link import DeviceLink
from harness.errors import DeviceError, TimingsIncomplete
from harness.lmx import Record
from harness.store.runs import RunWriter, create_run
from harness.types import Installation, Run

SCHEMA = "harness.measurement/1"


def measure(
    link: DeviceLink,
    installation: Installation,
    *,
    prompts: Sequence[str],
    max_tokens: int,
    threads: int | None,
    cpu_variant: str | None = None,
    workspace: Path,
) -> Run:
    """Generate greedily from each prompt, in one process with one load, and record the run.

    Samples by kind: "state" (a device state with `when`: before or after), "step" (a prompt as it
    was asked), "lmx" (a timing record as the device sent it), "result" (the app's result
    document). A run that breaks off keeps the timing records that had come as "lmx_partial".

    Raises `DeviceError` when the device or the app fails, `TimingsIncomplete` when records are
    lost for good or do not agree with the result.
    """
    steps = [
        Step(f"p{number}", prompt, conversation=f"p{number}", max_tokens=max_tokens, keep=False)
        for number, prompt in enumerate(prompts, start=1)
    ]
    before = state.read(link)
    meta = _meta(installation, before, steps, threads, cpu_variant)
    device = installation.device
    with (
        create_run(workspace, meta) as writer,
        console.step("measure", f"{len(steps)} prompts on {device}") as shown,
    ):
        writer.append("state", {"when": "before", **before.document()})
        for step in steps:
            writer.append("step", {"id": step.id, "prompt": step.prompt})
        reply = _generate(link, installation, steps, threads, cpu_variant, writer, shown)
        after = state.read(link)
        writer.append("state", {"when": "after", **after.document()})
        if after.boot_id != before.boot_id:
            raise DeviceError(
                f"{device} restarted while it was measured",
                cause="its boot id is another than before",
                remedy="run the same command again",
            )
        _check(reply, device.serial)
        tokens = sum(len(step["token_ids"]) for step in reply.result["steps"])
        shown.done(f"{tokens} tokens from {len(steps)} prompts on {device}")
        return writer.finish({"records": len(reply.records), "repaired": reply.repaired})


def _meta(
    installation: Installation,
    before: state.DeviceState,
    steps: Sequence[Step],
    threads: int | None,
    cpu_variant: str | None,
) -> dict[str, Any]:
    device, package = installation.device, installation.package
    return {
        "schema": SCHEMA,
        "model": package.name,
        "quantization": package.quantization,
        "package": package.key,
        "application": installation.application_id,
        "apk_sha256": installation.apk_sha256,
        "device": device.model,
        "serial": device.serial,
        "fingerprint": device.fingerprint,
        "api_level": device.api_level,
        "memory_bytes": device.memory_bytes,
        "target": str(device.target),
        "virtual": device.virtual,
        "boot_id": before.boot_id,
        "protocol": {
            "door": PROTOCOL,
            "sampling": "greedy",
            "template": True,
            "threads": threads,
            "cpu_variant": cpu_variant,
            "max_tokens": max(step.max_tokens for step in steps),
            "prompts": [step.prompt for step in steps],
        },
    }


def _generate(
    link: DeviceLink,
    installation: Installation,
    steps: Sequence[Step],
    threads: int | None,
    cpu_variant: str | None,
    writer: RunWriter,
    shown: console.Step,
) -> Reply:
    live: list[Record] = []

    def take(record: Record) -> None:
        live.append(record)
        if record["t"] == "tokens":
            done = record["first"] + len(record["ids"])
            shown.update(f"{record['step']} of {len(steps)} prompts, {done} tokens")

    app = App(
        link,
        model=installation.stamp,
        name=installation.package.name,
        application_id=installation.application_id,
        threads=threads,
        cpu_variant=cpu_variant,
        on_record=take,
        on_status=shown.update,
    )
    try:
        reply = app.generate(steps, run=writer.id)
    except BaseException:
        for record in live:
            writer.append("lmx_partial", record)
        raise
    for record in reply.records:
        writer.append("lmx", record)
    writer.append("result", reply.result)
    return reply


def _check(reply: Reply, serial: str) -> None:
    """Raise `TimingsIncomplete` unless every token of the result has its time."""
    timed: dict[str, list[int]] = {}
    for record in reply.records:
        if record["t"] == "tokens":
            timed.setdefault(str(record["step"]), []).extend(record["ids"])
    for step in reply.result["steps"]:
        _check_step(step, timed.get(str(step["id"]), []), serial)


def _check_step(step: Mapping[str, Any], timed: list[int], serial: str) -> None:
    if step["finish_reason"] == "error":
        raise DeviceError(
            f"{serial} could not finish prompt {step['id']}",
            cause=str(step.get("error") or "the app gave no reason"),
            remedy=f"adb -s {serial} logcat -d   # what the app said last",
        )
    if timed != step["token_ids"]:
        raise TimingsIncomplete(
            f"the timings from {serial} are not those of the answer",
            cause=f"prompt {step['id']} has {len(step['token_ids'])} tokens, {len(timed)} timed",
            remedy="measure again",
        )
