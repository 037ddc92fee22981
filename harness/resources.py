"""Files that ship with the harness, found in a checkout as well as in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def path(name: str) -> Path:
    """The folder or file `name` (such as "android-template", "models", "device-tests").

    A wheel carries these folders inside the package, a checkout beside it.
    """
    for base in (_PACKAGE.parent, _PACKAGE / "data"):
        candidate = base / name
        if candidate.exists() and (base != _PACKAGE.parent or _is_checkout(base)):
            return candidate
    raise FileNotFoundError(f"{name} is not part of this installation of harness")


def _is_checkout(base: Path) -> bool:
    return (base / "pyproject.toml").is_file()
