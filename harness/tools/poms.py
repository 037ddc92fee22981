"""Maven projects generated from the Gradle version catalog, so that versions stand in one place."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from harness.errors import StageFailed

CATALOG = "gradle/libs.versions.toml"
GROUP = "dev.alc"
VERSION = "1"
GOOGLE = "https://dl.google.com/android/maven2/"

# Each module stands on the one before it.
MODULES = ("engine", "runtime", "provider", "app")
# An app that runs the modules' own tests on a device; no part of what is shipped.
SUITES = "suites"
# Only the Android edge sees android.*; it is on every device, so it is never packaged.
PROVIDED = {"app": ("android-all",), SUITES: ("android-all",)}


@dataclass(frozen=True)
class Library:
    """Maven coordinates of a library in the catalog."""

    group: str
    artifact: str
    version: str

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"


@dataclass(frozen=True)
class Catalog:
    """What the harness reads from Gradle's version catalog."""

    versions: Mapping[str, str]
    libraries: Mapping[str, Library]
    bundles: Mapping[str, tuple[str, ...]]


def read_catalog(project: Path) -> Catalog:
    """The version catalog of a project folder.

    Raises `StageFailed` if it is missing, is not TOML, or names what it does not define.
    """
    path = project / CATALOG
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        versions = {str(name): str(value) for name, value in document["versions"].items()}
        libraries = {
            name: _library(entry, versions) for name, entry in document["libraries"].items()
        }
        bundles = {name: tuple(entry) for name, entry in document["bundles"].items()}
        for name in (*MODULES, "test"):
            for library in bundles[name]:
                libraries[library]
    except OSError as problem:
        raise StageFailed(
            f"cannot read {path}",
            cause=problem.strerror or str(problem),
            remedy="check that this is the folder of an Android project",
        ) from problem
    except (tomllib.TOMLDecodeError, KeyError, AttributeError, ValueError) as problem:
        raise StageFailed(
            f"{path} is not a version catalog",
            cause=f"missing {problem}" if isinstance(problem, KeyError) else str(problem),
            remedy=f"correct {path}",
        ) from problem
    return Catalog(versions, libraries, bundles)


def modules_of(project: Path) -> tuple[str, ...]:
    """The modules that the project has sources for, lowest first."""
    return tuple(name for name in MODULES if (project / name / "src/main/kotlin").is_dir())


def reactor(project: Path, catalog: Catalog, modules: Iterable[str]) -> dict[str, str]:
    """The text of each POM of a build of `modules`, by its path in the reactor's folder.

    The sources are named by absolute path and stay where they are; everything that Maven writes
    stays in the reactor.
    """
    modules = tuple(modules)
    result = {"pom.xml": _parent(catalog, modules)}
    for index, name in enumerate(modules):
        result[f"{name}/pom.xml"] = _module(project / name, name, modules[:index], catalog)
    return result


def resolver(libraries: Iterable[Library]) -> str:
    """The text of a POM that only depends on `libraries`."""
    return _document(
        f"""
  <groupId>{GROUP}</groupId><artifactId>resolve</artifactId><version>{VERSION}</version>
  <packaging>pom</packaging>
{_repositories()}
  <dependencies>
{_dependencies((library, "compile") for library in libraries)}
  </dependencies>"""
    )


def _library(entry: Any, versions: Mapping[str, str]) -> Library:
    group, artifact = str(entry["module"]).split(":")
    return Library(group, artifact, versions[entry["version"]["ref"]])


def _parent(catalog: Catalog, modules: tuple[str, ...]) -> str:
    versions = catalog.versions
    names = "\n".join(f"    <module>{escape(name)}</module>" for name in modules)
    plugins = "\n".join(
        f"      <plugin><artifactId>{name}</artifactId><version>{versions[key]}</version></plugin>"
        for name, key in (
            ("maven-jar-plugin", "mavenJar"),
            ("maven-resources-plugin", "mavenResources"),
            ("maven-surefire-plugin", "mavenSurefire"),
            ("maven-dependency-plugin", "mavenDependency"),
        )
    )
    return _document(
        f"""
  <groupId>{GROUP}</groupId><artifactId>android-template</artifactId><version>{VERSION}</version>
  <packaging>pom</packaging>
  <properties>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
  </properties>
  <modules>
{names}
  </modules>
  <build><pluginManagement><plugins>
{plugins}
  </plugins></pluginManagement></build>"""
    )


def _module(source: Path, name: str, below: tuple[str, ...], catalog: Catalog) -> str:
    versions = catalog.versions
    needs = [(Library(GROUP, module, VERSION), "compile") for module in below]
    tests = catalog.bundles["test"]
    needs += [
        (catalog.libraries[library], "compile")
        for library in (tests if name == SUITES else catalog.bundles[name])
    ]
    needs += [(catalog.libraries[library], "provided") for library in PROVIDED.get(name, ())]
    if name != SUITES:
        needs += [(catalog.libraries[library], "test") for library in tests]
    kotlin = versions["kotlin"]
    return _document(
        f"""
  <parent>
    <groupId>{GROUP}</groupId><artifactId>android-template</artifactId><version>{VERSION}</version>
  </parent>
  <artifactId>{escape(name)}</artifactId>
  <dependencies>
{_dependencies(needs)}
  </dependencies>
  <build>
    <sourceDirectory>{escape(str(source / "src/main/kotlin"))}</sourceDirectory>
    <testSourceDirectory>{escape(str(source / "src/test/kotlin"))}</testSourceDirectory>
    <testResources>
      <testResource><directory>{escape(str(source / "src/test/resources"))}</directory>\
</testResource>
    </testResources>
    <plugins>
      <plugin>
        <groupId>org.jetbrains.kotlin</groupId>
        <artifactId>kotlin-maven-plugin</artifactId>
        <version>{kotlin}</version>
        <configuration>
          <jvmTarget>{versions["jvmTarget"]}</jvmTarget>
          <compilerPlugins><plugin>kotlinx-serialization</plugin></compilerPlugins>
        </configuration>
        <executions>
          <execution>
            <id>compile</id><phase>compile</phase><goals><goal>compile</goal></goals>
            <configuration>
              <args><arg>-Xexplicit-api=strict</arg><arg>-Wextra</arg><arg>-Werror</arg></args>
            </configuration>
          </execution>
          <execution>
            <id>test-compile</id><phase>test-compile</phase>
            <goals><goal>test-compile</goal></goals>
          </execution>
        </executions>
        <dependencies>
          <dependency>
            <groupId>org.jetbrains.kotlin</groupId>
            <artifactId>kotlin-maven-serialization</artifactId>
            <version>{kotlin}</version>
          </dependency>
        </dependencies>
      </plugin>
    </plugins>
  </build>"""
    )


def _dependencies(needs: Iterable[tuple[Library, str]]) -> str:
    return "\n".join(
        f"    <dependency><groupId>{escape(library.group)}</groupId>"
        f"<artifactId>{escape(library.artifact)}</artifactId>"
        f"<version>{escape(library.version)}</version><scope>{scope}</scope></dependency>"
        for library, scope in needs
    )


def _repositories() -> str:
    return f"""  <repositories>
    <repository><id>google</id><url>{GOOGLE}</url></repository>
  </repositories>"""


def _document(body: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<project xmlns="http://maven.apache.org/POM/4.0.0">\n'
        f"  <modelVersion>4.0.0</modelVersion>{body}\n</project>\n"
    )
