"""package: the signed APK of a rendered project.

Without an Android SDK it is made directly (see `direct`); where Gradle and an SDK are there,
Gradle builds the project. Both ways are held to the same checks and signed with the same key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness import console, files
from harness.stages.package import direct
from harness.stages.package.check import Expected, check
from harness.store import artifacts
from harness.tools import aapt2, apksig, gradle
from harness.tools.android_project import Facts, read_facts
from harness.types import Project, SignedApk

STAGE = "package"


def package(project: Project, workspace: Path) -> SignedApk:
    """Make the signed APK of `project`, or return the one that is there.

    Raises `MissingTool` without a JDK, Maven or aapt2, or without the network that the first build
    needs; `StageFailed` if something does not compile, or the APK is not what it should be.
    """
    facts = read_facts(project.path)
    keystore = apksig.debug_keystore()
    with_gradle = gradle.find(facts.compile_sdk)
    linker = aapt2.find()
    inputs = {
        "project": project.key,
        "signer": files.sha256_file(keystore),
        "way": f"gradle {with_gradle.version}" if with_gradle else f"aapt2 {linker.version}",
        "tools": direct.FORMAT,
    }
    name = f"{project.application_id}-{project.target}.apk"

    def work(folder: Path) -> Mapping[str, object]:
        if with_gradle is not None:
            with console.step(STAGE, f"APK with Gradle {with_gradle.version}") as step:
                unsigned = with_gradle.assemble(project.path, step)
        else:
            unsigned = folder / "unsigned.apk"
            direct.assemble(project, facts, workspace, linker, unsigned)
        signed = folder / name
        with console.step(STAGE, "signing") as step:
            certificates = _sign(project, facts, unsigned, signed, keystore)
            size = console.size(signed.stat().st_size)
            step.done(f"{name}, {size}, signed (v2 and v3)")
        if unsigned.parent == folder:
            unsigned.unlink()
        return {"sha256": files.sha256_file(signed), "certificates": certificates}

    made = artifacts.produce(workspace, STAGE, inputs, work)
    sha256 = str(made.manifest["facts"]["sha256"])
    return SignedApk(made.path / name, made.key, project.application_id, sha256, project.target)


def _sign(
    project: Project, facts: Facts, unsigned: Path, signed: Path, keystore: Path
) -> list[str]:
    """Sign, and look at the result as a phone would; the certificates' SHA-256."""
    signer = apksig.find(project.path)
    signer.sign(unsigned, signed, keystore=keystore, min_sdk=facts.min_sdk)
    check(signed, Expected.of(project, facts))
    return list(signer.verify(signed).certificates)
