"""apksig: signs APKs and checks their signatures, as a phone's package manager would."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness import process
from harness.errors import HarnessError, MissingTool, StageFailed
from harness.tools import jdk, maven

ALIAS = "androiddebugkey"
# The password that every Android tool gives debug keys: it guards nothing.
PASSWORD = "android"
SECONDS = 300.0
_PROGRAM = Path(__file__).parent / "java" / "Apksig.java"


class BadSignature(StageFailed):
    """An APK that is not signed, or whose bytes are not those that were signed."""


@dataclass(frozen=True)
class Signature:
    """What `verify` found: schemes such as (2, 3), and each signer's certificate as SHA-256."""

    schemes: tuple[int, ...]
    certificates: tuple[str, ...]


@dataclass(frozen=True)
class Apksig:
    """The apksig library and the Java that runs it."""

    jdk: jdk.Jdk
    jar: Path

    def sign(self, unsigned: Path, signed: Path, *, keystore: Path, min_sdk: int) -> None:
        """Write `signed`: the entries of `unsigned` with signatures of schemes 2 and 3.

        The same input and key give the same bytes. Raises `StageFailed` if the key cannot be read
        or `unsigned` is no APK.
        """
        words = ["sign", str(keystore), ALIAS, PASSWORD, str(unsigned), str(signed), str(min_sdk)]
        process.run([*self._argv(), *words], what="signing", timeout=SECONDS)

    def verify(self, apk: Path) -> Signature:
        """Check every byte of `apk` against its signatures.

        Raises `BadSignature` if one does not hold or there is none, `StageFailed` if the file
        cannot be read.
        """
        if not apk.is_file():
            raise StageFailed(f"cannot read {apk}", cause="there is no such file")
        done = process.run([*self._argv(), "verify", str(apk)], timeout=SECONDS, check=False)
        lines = [line.split(" ", 1) for line in done.stdout.splitlines() if " " in line]
        errors = [text for word, text in lines if word == "error"]
        certificates = tuple(text for word, text in lines if word == "certificate")
        if done.code == 0 and certificates:
            schemes = tuple(int(text) for word, text in lines if word == "scheme")
            return Signature(schemes, certificates)
        if not errors:
            raise StageFailed(
                f"cannot check the signature of {apk.name}",
                cause=done.stderr.strip().splitlines()[0] if done.stderr.strip() else "no answer",
                remedy="harness doctor",
            )
        raise BadSignature(
            f"the signature of {apk.name} does not hold",
            cause="; ".join(errors[:3]),
            remedy="harness package   # makes and signs it anew",
        )

    def _argv(self) -> list[str | Path]:
        # The sources are run as they are: compiling them costs less than a second, and no class
        # file can be older than its source.
        return [self.jdk.java, "-XX:TieredStopAtLevel=1", "-cp", self.jar, _PROGRAM]


def find(template: Path, *, stage: str = "package") -> Apksig:
    """apksig of the version in the template's catalog, fetched by Maven at the first call.

    Raises `MissingTool` without a JDK, or without the Maven or network that the first call needs.
    """
    found = jdk.find()
    jars = maven.resolve(template, ["apksig"], stage=stage)
    return Apksig(found, jars[0])


def debug_keystore() -> Path:
    """The user's debug key, made at the first call and kept: a phone refuses updates by another.

    Raises `MissingTool` without a JDK, `StageFailed` if the key cannot be made.
    """
    import platformdirs
    from filelock import FileLock

    path = Path(platformdirs.user_data_dir("harness")) / "debug.keystore"
    if path.is_file():
        return path
    keytool = jdk.find().home / "bin" / "keytool"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.is_file():
                _make_key(keytool, path)
    except OSError as problem:
        raise StageFailed(
            f"cannot keep a signing key in {path.parent}",
            cause=problem.strerror or str(problem),
            remedy=f"ls -ld {path.parent}",
        ) from problem
    return path


def _make_key(keytool: Path, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".key.") as folder:
        made = Path(folder) / path.name
        argv: list[str | Path] = [keytool, "-genkeypair", "-keystore", made, "-storetype", "PKCS12"]
        argv += ["-alias", ALIAS, "-storepass", PASSWORD, "-keypass", PASSWORD]
        argv += ["-keyalg", "RSA", "-keysize", "2048", "-validity", "10950"]
        argv += ["-dname", "CN=Android Debug,O=Android,C=US"]
        try:
            process.run(argv, what="keytool", timeout=SECONDS)
        except MissingTool as failure:
            raise MissingTool(
                "keytool was not found", cause=f"{keytool} is not there", remedy=jdk.REMEDY
            ) from failure
        except HarnessError as failure:
            raise StageFailed("cannot make a signing key", cause=failure.cause) from failure
        made.chmod(0o600)
        made.replace(path)
