"""Checkpoints from a hub, against a small one on this machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import pytest

from harness import recipes
from harness.compiler.sources import source
from harness.errors import StageFailed

CONFIG = b'{"model_type": "gemma3_text", "max_position_embeddings": 512}'
WEIGHTS = bytes(range(256)) * 12_000
TOKEN = "hf_averysecrettoken"
COMMIT = "1" * 40


@dataclass
class Hub:
    """What the hub holds and how it behaves; `asked` is what it was asked, in order."""

    repositories: dict[str, dict[str, bytes]]
    commit: str = COMMIT
    token: str | None = None
    """If set, only this token is let in."""
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Repositories whose files are answered with a status and an error code."""
    status: int = 200
    """Any other: every answer has it."""
    cut_after: int | None = None
    """If set, the next download ends after so many bytes."""
    lie: bool = False
    """Send other bytes than the ETag says."""
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def etag(self, data: bytes) -> str:
        # Large files have their SHA-256, as from Git LFS; small ones git's hash of a blob.
        if len(data) > 1000:
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    hub: ClassVar[Hub]
    cdn: ClassVar[str]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        hub = self.hub
        hub.asked.append((self.command, self.path, dict(self.headers)))
        parts = unquote(self.path).strip("/").split("/")
        if parts[0] == "cdn":
            self.send_file(hub.repositories["/".join(parts[1:3])]["/".join(parts[3:])])
            return
        if parts[0] == "api" and parts[1] != "models":
            self.refuse(404, "")
            return
        api = parts[0] == "api"
        id = "/".join(parts[2:4] if api else parts[:2])
        revision = parts[5 if api else 3]
        if hub.status != 200:
            self.refuse(hub.status, "")
        elif hub.token is not None and self.headers["authorization"] != f"Bearer {hub.token}":
            self.refuse(401, "")
        elif id not in hub.repositories:
            self.refuse(404, "RepoNotFound")
        elif revision not in ("main", hub.commit):
            self.refuse(404, "RevisionNotFound")
        elif id in hub.refused and not api:
            self.refuse(*hub.refused[id])
        elif api:
            siblings = [{"rfilename": name} for name in hub.repositories[id]]
            self.answer(json.dumps({"id": id, "sha": hub.commit, "siblings": siblings}).encode())
        else:
            self.resolve(id, "/".join(parts[4:]))

    do_HEAD = do_GET  # noqa: N815

    def resolve(self, id: str, name: str) -> None:
        data = self.hub.repositories[id].get(name)
        if data is None:
            self.refuse(404, "EntryNotFound")
            return
        etag = self.hub.etag(data)
        if len(etag) == 40:
            self.send_file(data)
            return
        self.send_response(302)
        self.send_header("Location", f"{self.cdn}/cdn/{id}/{name}")
        self.send_header("X-Repo-Commit", self.hub.commit)
        self.send_header("X-Linked-Etag", f'"{etag}"')
        self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_file(self, data: bytes) -> None:
        hub, start = self.hub, 0
        etag = hub.etag(data)
        if self.headers["range"]:
            start = int(self.headers["range"].removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", hub.commit)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        body = bytes(255 - byte for byte in data) if hub.lie else data
        if hub.cut_after is not None and len(data) > hub.cut_after:
            body, hub.cut_after = body[: start + hub.cut_after], None
            self.close_connection = True
            hub.status = 503
        self.wfile.write(body[start:])

    def answer(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Served:
    """A hub and the second host that its large files come from."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        cdn = self._server(hub, "")
        # Another name for the same machine is another host, which must not see the token.
        hub_server = self._server(hub, f"http://localhost:{cdn.server_address[1]}")
        self.servers = [cdn, hub_server]
        self.url = f"http://127.0.0.1:{hub_server.server_address[1]}"

    def _server(self, hub: Hub, cdn: str) -> http.server.ThreadingHTTPServer:
        handler = type("_Handler", (Handler,), {"hub": hub, "cdn": cdn})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def close(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()


FETCH = """import json, sys
from pathlib import Path
from harness import console, recipes
from harness.compiler.sources import source
from harness.errors import HarnessError
console.configure(verbose=True, log=Path("log.txt"))
for text in sys.argv[1].split():
    try:
        recipe = recipes.find(text, Path())
        digest = source.checkpoint_hash(recipe)
        path = source.checkpoint_path(recipe)
        print(json.dumps({"hash": digest, "path": str(path), "name": recipe.name,
                          "quantization": recipe.quantization, "context": recipe.context}))
    except HarnessError as problem:
        console.error(problem)
        print(json.dumps({"code": problem.exit_code, "what": problem.what, "cause": problem.cause,
                          "remedy": problem.remedy}))
"""
Fetch = Callable[..., Any]


@pytest.fixture
def hub() -> Iterator[Served]:
    small = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}
    other = {"README.md": b"hello", "pytorch_model.bin": b"a pickle"}
    served = Served(Hub({"org/Small-1B": {**small, **other}}))
    yield served
    served.close()


@pytest.fixture
def fetch(hub: Served, tmp_path: Path) -> Fetch:
    """A function that fetches models in a process of its own, with caches of this test's own.

    Models stand in one string; of one, its answer comes back, of several a list.
    """

    def run(models: str = "org/Small-1B", *wrapper: str, **changes: str) -> Any:
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            **changes,
        }
        done = subprocess.run(
            [*wrapper, sys.executable, "-c", FETCH, models],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Traceback" not in done.stderr, done.stderr
        shown = done.stdout + done.stderr + (tmp_path / "log.txt").read_text()
        assert TOKEN not in shown
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        return answers if len(answers) > 1 else answers[0]

    return run


def downloads(hub: Served) -> list[tuple[str, str | None]]:
    """The files that were asked for, with the range; a name for each answer with content."""
    return [
        (path.rpartition("/")[2], headers.get("Range") or headers.get("range"))
        for method, path, headers in hub.hub.asked
        if method == "GET" and "/api/" not in path
    ]


def test_a_hub_id_brings_what_is_needed_once_and_is_locked(
    hub: Served, fetch: Fetch, tmp_path: Path
) -> None:
    hub.hub.token = TOKEN
    first = fetch(HF_TOKEN=TOKEN)
    assert (first["name"], first["quantization"], first["context"]) == ("small-1b", "q4f16_1", 512)
    folder = Path(first["path"])
    assert folder.is_relative_to(tmp_path / "hf")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    # The host of the large files is another and never sees the token.
    there = [headers for _, path, headers in hub.hub.asked if path.startswith("/cdn/")]
    assert there and not any("authorization" in map(str.lower, headers) for headers in there)

    lock = json.loads((tmp_path / "models/small-1b/recipe.lock").read_text())
    assert (lock["commit"], lock["revision"]) == (COMMIT, "main")
    assert lock["files"]["model.safetensors"] == {
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
        "size": len(WEIGHTS),
    }
    # The branch moves on and the network goes away: the lock and the cache hold.
    hub.hub.commit, hub.hub.repositories["org/Small-1B"]["config.json"] = "2" * 40, b"{}"
    hub.hub.asked.clear()
    assert fetch(HF_HUB_OFFLINE="1") == first
    assert hub.hub.asked == []
    # A folder with the same files has the same hash.
    assert source.folder_hash(folder) == first["hash"]


def test_another_byte_than_the_locked_one_is_an_error_that_says_how_to_renew(
    hub: Served, fetch: Fetch, tmp_path: Path
) -> None:
    path = Path(fetch()["path"]) / "tokenizer.json"
    path.resolve().write_bytes(b"{ }")
    failed = fetch()
    assert failed["code"] == 4
    assert failed["what"].startswith("tokenizer.json of org/Small-1B is another file")
    assert "rm models/small-1b/recipe.lock" in failed["remedy"]
    path.resolve().unlink()
    assert Path(fetch()["path"]) == path.parent


def test_a_download_goes_on_where_it_was_stopped(hub: Served, fetch: Fetch, tmp_path: Path) -> None:
    hub.hub.repositories["org/Small-1B"]["model.safetensors"] = WEIGHTS * 8
    hub.hub.cut_after = 20_000_000
    failed = fetch()
    assert failed["code"] == 3
    assert not (tmp_path / "models").exists()
    (partial,) = (tmp_path / "hf").rglob("*.incomplete")
    assert 0 < partial.stat().st_size <= 20_000_000
    hub.hub.status = 200
    hub.hub.asked.clear()
    expected = f"bytes={partial.stat().st_size}-"
    assert "hash" in fetch()
    assert ("model.safetensors", expected) in downloads(hub)
    assert not list((tmp_path / "hf").rglob("*.incomplete"))


def test_a_damaged_download_is_refused_and_not_kept(
    hub: Served, fetch: Fetch, tmp_path: Path
) -> None:
    hub.hub.lie = True
    failed = fetch()
    assert failed["code"] == 4 and "arrived damaged" in failed["what"]
    hub.hub.lie = False
    assert "hash" in fetch()


def test_what_a_hub_refuses_is_one_clear_error(hub: Served, fetch: Fetch) -> None:
    small = hub.hub.repositories["org/Small-1B"]
    hub.hub.repositories |= {
        "org/Bare": {"config.json": CONFIG},
        "org/Pickled": {"config.json": CONFIG, "model.bin": b""},
        **dict.fromkeys(("org/Gated", "org/Denied", "org/Broken"), small),
    }
    hub.hub.refused = {
        "org/Gated": (403, "GatedRepo"),
        "org/Denied": (403, ""),
        "org/Broken": (500, ""),
    }
    expected = {
        "org/Gated": (3, "accept the licence, then: export HF_TOKEN"),
        "org/Denied": (3, "HTTP 403: the token in HF_TOKEN is not valid"),
        "org/Broken": (3, "HTTP 500"),
        "org/None": (2, "the hub shows no model org/None"),
        "org/Small-1B@v9": (2, "no revision 'v9'"),
        "org/Bare": (2, "no safetensors file"),
        "org/Pickled": (2, "pickled"),
        "org/a..b": (2, "no Hugging Face id"),
    }
    answers = fetch(" ".join(expected), HF_TOKEN=TOKEN)
    assert len(answers) == len(expected)
    for failed, (code, said) in zip(answers, expected.values(), strict=True):
        assert failed["code"] == code
        assert said in " ".join((failed["what"], failed["cause"], failed["remedy"]))


def test_a_wrong_token_and_a_wrong_hub_are_one_clear_error(hub: Served, fetch: Fetch) -> None:
    hub.hub.commit = "../../main"
    assert fetch()["cause"] == "it names no commit for org/Small-1B"
    hub.hub.token = "hf_another"
    failed = fetch(HF_TOKEN=TOKEN)
    assert failed["code"] == 3 and "export HF_TOKEN" in failed["remedy"]


def test_without_a_network_the_error_says_so(fetch: Fetch, free_port: int) -> None:
    failed = fetch(HF_ENDPOINT=f"http://127.0.0.1:{free_port}")
    assert failed["code"] == 3 and f"cannot reach http://127.0.0.1:{free_port}" in failed["what"]
    failed = fetch(HF_HUB_OFFLINE="1")
    assert failed["code"] == 3 and failed["remedy"] == "unset HF_HUB_OFFLINE"


def test_a_full_disk_is_one_error_that_names_it(fetch: Fetch, tmp_path: Path) -> None:
    small = tmp_path / "hf"
    small.mkdir()
    mounted = f'mount -t tmpfs -o size=2m none {small} && exec "$@"'
    wrapper = ("unshare", "-rm", "sh", "-c", mounted, "sh")
    if subprocess.run([*wrapper, "true"], capture_output=True).returncode:
        pytest.skip("needs a file system of its own")
    failed = fetch("org/Small-1B", *wrapper)
    assert failed["code"] == 4 and failed["cause"] == "the disk is full"


def write_recipe(folder: Path, hub_lines: str) -> Path:
    shipped = recipes.find("smollm2-135m-instruct", Path("/nonexistent")).folder / "recipe.toml"
    head, _, rest = shipped.read_text().partition("[source]")
    path = folder / "recipe.toml"
    path.write_text(f"{head}[source]\n{hub_lines}\n\n[compile]{rest.partition('[compile]')[2]}")
    return path


def test_a_recipe_may_name_one_file_of_a_repository(
    hub: Served, fetch: Fetch, tmp_path: Path
) -> None:
    hub.hub.repositories["org/GGUF"] = {"q4/a.gguf": WEIGHTS, "b.gguf": b"GGUF", "README.md": b""}
    failed = fetch("org/GGUF")
    assert failed["code"] == 2 and "q4/a.gguf" in failed["cause"]
    recipe = write_recipe(tmp_path, 'hub = "org/GGUF"\nfiles = ["q4/a.gguf"]')
    got = fetch(str(recipe))
    assert Path(got["path"]).read_bytes() == WEIGHTS
    assert got["hash"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert (tmp_path / "recipe.lock").is_file()
    write_recipe(tmp_path, 'hub = "org/GGUF"\nfiles = ["b.gguf"]')
    failed = fetch(str(recipe))
    assert failed["code"] == 2 and failed["remedy"].startswith(f"rm {tmp_path}/recipe.lock")
    for damage in ("{", "[]", '{"schema": "harness.lock/1", "commit": 1}', "[" * 50_000):
        (tmp_path / "recipe.lock").write_text(damage)
        failed = fetch(str(recipe)) if damage == "{" else {"code": lock_error(recipe)}
        assert failed["code"] == 4


def lock_error(recipe: Path) -> int:
    with pytest.raises(StageFailed) as caught:
        source.checkpoint_hash(recipes.load(recipe))
    return int(caught.value.exit_code)
