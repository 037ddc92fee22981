"""What the user reads when a call to the app fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.device.instrumentation import Outcome
from harness.device.link import DeviceGone
from harness.errors import DeviceError, TimingsIncomplete

# Stands in commands to try for the name of the model, of which a call knows only the stamp.
MODEL = "MODEL"

# By the kinds of the app's EngineException.
_REMEDIES = {
    "model-not-found": "harness deploy MODEL -s {serial}",
    "model-damaged": "harness deploy MODEL -s {serial} --verify   # sends damaged files again",
    "model-incompatible": "harness run MODEL -s {serial}   # compiles and deploys it anew",
    "context-full": "ask for fewer tokens (--max-tokens) or use a shorter prompt",
    "invalid-request": "change what the cause names, or leave it out",
    "cache-budget": "ask for fewer tokens (--max-tokens) or use a shorter prompt",
}


class AppError(DeviceError):
    """The app answered that it could not do what it was asked; `kind` is its word for why."""

    def __init__(self, what: str, *, kind: str, cause: str, remedy: str) -> None:
        super().__init__(what, cause=cause, remedy=remedy)
        self.kind = kind


def app_error(serial: str, error: Mapping[str, Any]) -> AppError:
    """The app's own error document `{"kind", "message"}`."""
    kind = str(error.get("kind", "unknown"))
    advice = _REMEDIES.get(kind, "adb -s {serial} logcat -d   # what the app said last")
    return AppError(
        f"the app on {serial} could not do it",
        kind=kind,
        cause=f"{kind}: {error.get('message') or 'no reason given'}",
        remedy=advice.format(serial=serial),
    )


def instrumentation_failed(serial: str, outcome: Outcome, report: Sequence[str]) -> DeviceError:
    """An instrumentation that did not end with a result; `report` is the log's crash report."""
    if "Unable to find instrumentation" in outcome.problem:
        return DeviceError(
            f"the app is not installed on {serial}",
            cause=outcome.problem,
            remedy=f"harness deploy MODEL -s {serial}",
        )
    error = outcome.results.get("error", "")
    if "protocol:" in error:
        return DeviceError(
            f"the app on {serial} refused the request",
            cause=error,
            remedy=f"harness deploy MODEL -s {serial}   # installs the matching app",
        )
    kind, _, message = error.partition(": ")
    if kind == "invalid-request":
        return app_error(serial, {"kind": kind, "message": message})
    if error:
        return DeviceError(
            f"the app on {serial} failed",
            cause=error,
            remedy=f"adb -s {serial} logcat -d -s LMX   # where it failed",
        )
    words = [line.strip() for line in report if line.strip()]
    return DeviceError(
        f"the app on {serial} crashed",
        cause="; ".join([outcome.problem or "it did not say how it ended", *words[:4]]),
        remedy=f"adb -s {serial} logcat -d -b crash   # the whole report",
    )


def not_understood(serial: str, cause: str) -> DeviceError:
    """A result that this harness cannot read."""
    return DeviceError(
        f"the app's result on {serial} is not understood",
        cause=cause,
        remedy=f"harness deploy MODEL -s {serial}   # installs the matching app",
    )


def incomplete(serial: str, cause: str) -> TimingsIncomplete:
    """Timing records that are lost for good."""
    return TimingsIncomplete(
        f"the timings from {serial} are not complete",
        cause=cause,
        remedy=f"adb -s {serial} logcat -G 4M   # then measure again",
    )


def stopped(serial: str, cause: str) -> DeviceError:
    """An app that was ended because it did not get on."""
    return DeviceError(
        f"the app on {serial} was stopped",
        cause=cause,
        remedy=f"adb -s {serial} logcat -d   # what the app said last",
    )


def no_clock(serial: str, printed: str) -> DeviceError:
    """A device whose shell does not do what Android's does."""
    return DeviceError(
        f"{serial} does not tell its time",
        cause=f"`date +%s` printed {printed!r}",
        remedy=f"adb -s {serial} shell date +%s",
    )


def broke_off(serial: str, gone: DeviceGone, *, restarted: bool) -> DeviceError:
    """A device that came back without the run that was going on."""
    if restarted:
        what, cause = f"{serial} restarted in mid-run", "its boot id is another than before"
    else:
        what = f"the connection to {serial} broke in mid-run"
        cause = f"{gone.cause}; the app did not finish"
    return DeviceError(what, cause=cause, remedy="run the same command again")
