"""Golden files: read whole, or refused with a reason."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.compiler.numerics import golden_logits
from harness.compiler.numerics.fidelity import fidelity, tolerance
from harness.compiler.numerics.golden_logits import read_golden_logits
from harness.errors import UsageError

RNG = np.random.default_rng(3)
LOGITS = RNG.standard_normal((5, 11)).astype(np.float32)


def write(path: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {
        "input_ids": np.arange(5, dtype=np.int64)[None],
        "logits": LOGITS,
        "greedy": np.array([3, 4], np.int64),
        **changes,
    }
    np.savez_compressed(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def test_a_golden_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    golden = read_golden_logits(write(tmp_path / "golden.npz"))
    assert golden.tokens == (0, 1, 2, 3, 4) and golden.greedy == (3, 4)
    assert np.array_equal(golden.logits, LOGITS)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"greedy": None}, "has no array greedy"),
        ({"logits": LOGITS.astype(np.float64)}, "logits is float64"),
        ({"logits": LOGITS[:4]}, "5 tokens have 4 rows"),
        ({"logits": LOGITS[0]}, "the shapes are"),
        ({"input_ids": np.zeros((2, 5), np.int64)}, "the shapes are"),
        ({"input_ids": np.full((1, 5), 11, np.int64)}, "outside the vocabulary of 11"),
        ({"greedy": np.array([-1])}, "outside the vocabulary"),
        ({"logits": np.where(LOGITS > 2, np.nan, np.nan).astype(np.float32)}, "are no numbers"),
        ({"logits": np.array([object()])}, "Object arrays"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(
    tmp_path: Path, changes: dict[str, Any], cause: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read_golden_logits(write(tmp_path / "golden.npz", **changes))
    assert cause in caught.value.cause and caught.value.remedy


def test_a_file_that_would_unpack_to_too_much_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden_logits, "MAX_BYTES", 200)
    with pytest.raises(UsageError) as caught:
        read_golden_logits(write(tmp_path / "golden.npz"))
    assert "unpacks to more than" in caught.value.cause


def test_a_file_that_is_no_archive_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    for name in ("text", "absent"):
        with pytest.raises(UsageError):
            read_golden_logits(tmp_path / name)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damage_anywhere_is_one_error_or_none(tmp_path: Path, data: st.DataObject) -> None:
    path = write(tmp_path / "golden.npz")
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    path.write_bytes(damaged[: cut if data.draw(st.booleans()) else None])
    # Damage may fall where nothing reads; any other error than this one is a failure.
    with contextlib.suppress(UsageError):
        assert len(read_golden_logits(path).tokens) == 5


def test_an_array_that_announces_more_than_it_has_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<i8", "fortran_order": False, "shape": (1, 1 << 60)}
    )
    path = tmp_path / "golden.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("input_ids.npy", buffer.getvalue())
    with pytest.raises(UsageError):
        read_golden_logits(path)


def test_equal_logits_do_not_differ_and_a_shifted_one_does() -> None:
    same = fidelity(LOGITS, LOGITS)
    assert (same.max_abs, same.mean_abs, same.top1) == (0, 0, 1) and abs(same.kl) < 1e-12
    other = LOGITS.copy()
    other[2, 3] += 20
    found = fidelity(LOGITS, other)
    assert found.max_abs == pytest.approx(20) and found.kl > 0.1 and found.top1 == 0.8


def test_kl_is_what_the_definition_says() -> None:
    other = LOGITS + RNG.standard_normal(LOGITS.shape).astype(np.float32)
    p, q = (np.exp(x.astype(np.float64)) for x in (LOGITS, other))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    expected = (p * np.log(p / q)).sum(-1).mean()
    assert fidelity(LOGITS, other).kl == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_outside_every_tolerance(bad: float) -> None:
    other = LOGITS.copy()
    other[1, 1] = bad
    for name in ("q0f32", "q4f16_1", "q3f16_1"):
        assert tolerance(name, "int8").broken_by(fidelity(LOGITS, other))
