"""The Hugging Face Hub: what a repository holds at a revision, and its files, fetched once.

Files lie in huggingface_hub's own cache (HF_HOME), so that what other programs fetched is used.
A download that was stopped goes on where it stopped: huggingface_hub would begin it anew, so the
bytes are brought here, under the name under which its cache looks for them. HF_TOKEN,
HF_ENDPOINT, HF_HUB_OFFLINE and the proxy variables are honoured by huggingface_hub itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import console, files
from harness.errors import HarnessError, MissingTool, StageFailed, UsageError
from harness.tools import pip

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class Listing:
    """The names of a repository's files at a commit."""

    commit: str
    names: tuple[str, ...]


def list_files(repository: str, revision: str) -> Listing:
    """What `repository` ("org/name") holds at a branch, tag or commit.

    Raises `UsageError` if there is no such repository or revision; `MissingTool` without a
    network, or without the right to see it.
    """
    with _told(repository, revision):
        from huggingface_hub import HfApi

        try:
            info = HfApi().model_info(repository, revision=revision, timeout=30)
            listing = Listing(str(info.sha), tuple(file.rfilename for file in info.siblings or ()))
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as problem:
            raise _no_hub(f"its answer cannot be read: {type(problem).__name__}") from problem
    if not _COMMIT.fullmatch(listing.commit):
        raise _no_hub(f"it names no commit for {repository}")
    return listing


def fetch(repository: str, commit: str, name: str, *, stage: str) -> Path:
    """The file `name` of a repository at a commit, from the cache or the network.

    `stage` names the work on the screen. Raises as `list_files` does, and `StageFailed` if the
    disk is full or the bytes are not those that the hub announced.
    """
    with _told(repository, commit):
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        cached = try_to_load_from_cache(repository, name, revision=commit)
        if isinstance(cached, str) and Path(cached).is_file():
            return Path(cached)
        with console.step(stage, f"fetching {name} of {repository}") as step:
            _bring_blob(repository, commit, name, step)
            return Path(hf_hub_download(repository, name, revision=commit))


def _bring_blob(repository: str, commit: str, name: str, step: console.Step) -> None:
    """Put the file's bytes where huggingface_hub's cache looks for them."""
    from filelock import FileLock
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils.tqdm import disable_progress_bars

    # What shows is the step, and an error says what a warning would.
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    url = hf_hub_url(repository, name, revision=commit)
    metadata = get_hf_file_metadata(url)
    etag = metadata.etag
    if etag is None or metadata.size is None or not _HASH.fullmatch(etag):
        raise _no_hub(f"it says neither size nor hash of {name}")
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    blobs = Path(constants.HF_HUB_CACHE) / folder / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    locks = pip.cache_folder() / "hub"
    locks.mkdir(parents=True, exist_ok=True)
    partial = blobs / f"{etag}.incomplete"
    with FileLock(locks / f"{etag}.lock"):
        if (blobs / etag).is_file():
            return
        with _Partial(partial, metadata.size, step) as file:
            if file.begun > metadata.size:
                file.restart()
            # httpx drops the token itself where the hub sends it on to another host.
            http_get(
                url,
                file,
                resume_size=file.begun,
                headers=build_hf_headers(),
                expected_size=metadata.size,
            )
        _check(partial, etag, name)
        partial.replace(blobs / etag)


class _Partial(io.FileIO):
    """A file that is written from its end on and says how far it is."""

    def __init__(self, path: Path, total: int, step: console.Step) -> None:
        super().__init__(path, "r+" if path.exists() else "w+")
        self.begun = self.seek(0, io.SEEK_END)
        self._total = total
        self._step = step

    def restart(self) -> None:
        """Forget what was there: it belongs to no file of this size."""
        self.truncate(self.seek(0))
        self.begun = 0

    def write(self, data: Any) -> int:
        left = memoryview(data)
        while left:
            left = left[super().write(left) :]
        self._step.progress(self.tell(), self._total, "B")
        return len(data)


def _check(path: Path, etag: str, name: str) -> None:
    """Hold a download to its ETag: SHA-256 of a large file, else git's SHA-1 of a blob."""
    if len(etag) == 64:
        actual = files.sha256_file(path)
    else:
        data = path.read_bytes()
        actual = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    if actual != etag:
        path.unlink()
        raise StageFailed(
            f"{name} arrived damaged",
            cause=f"its hash is {actual}, the hub announced {etag}",
            remedy="run the same command again",
        )


@contextlib.contextmanager
def _told(repository: str, revision: str) -> Iterator[None]:
    """What can go wrong with a hub, as one clear error. No message of it may hold the token."""
    import httpx2
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repository}"
    try:
        yield
    except errors.GatedRepoError as problem:
        raise MissingTool(
            f"{repository} is gated",
            cause="its licence must be accepted, and HF_TOKEN must be of the account that did",
            remedy=f"open {page}, accept the licence, then: export HF_TOKEN=<token>",
        ) from problem
    except errors.RevisionNotFoundError as problem:
        raise UsageError(
            f"{repository} has no revision {revision!r}",
            cause="the hub does not know it (it may have been deleted)",
            remedy=f"open {page}/commits/main   # and name a revision that it lists",
        ) from problem
    except errors.RepositoryNotFoundError as problem:
        raise UsageError(
            f"the hub shows no model {repository}",
            cause="there is none of that name, or it is private and needs HF_TOKEN",
            remedy=f"open {page}   # and check the name, or: export HF_TOKEN=<token>",
        ) from problem
    except errors.EntryNotFoundError as problem:
        if isinstance(problem, errors.LocalEntryNotFoundError):
            raise _unreachable(constants.ENDPOINT, "no connection") from problem
        raise UsageError(
            f"{repository} lacks a file at {revision}",
            cause="the hub answered that it is not there",
            remedy=f"open {page}/tree/{revision}",
        ) from problem
    except errors.HfHubHTTPError as problem:
        raise _refused(repository, page, problem.response.status_code) from problem
    except errors.OfflineModeIsEnabled as problem:
        raise MissingTool(
            f"cannot fetch {repository}",
            cause="HF_HUB_OFFLINE is set",
            remedy="unset HF_HUB_OFFLINE",
        ) from problem
    except httpx2.HTTPError as problem:
        cause = str(problem) or type(problem).__name__
        raise _unreachable(constants.ENDPOINT, cause) from problem
    except OSError as problem:
        if problem.errno is None:
            # huggingface_hub's own: the hub sent fewer bytes than it announced.
            raise _unreachable(constants.ENDPOINT, "the download was cut short") from problem
        raise files.disk_error(Path(constants.HF_HUB_CACHE), problem) from problem
    except errors.HFValidationError as problem:
        raise UsageError(
            f"{repository!r} is no Hugging Face id",
            cause=str(problem),
            remedy="give it as org/name, as its page's address ends",
        ) from problem


def _refused(repository: str, page: str, status: int) -> HarnessError:
    if status in (401, 403):
        return MissingTool(
            f"the hub refuses {repository}",
            cause=f"HTTP {status}: the token in HF_TOKEN is not valid or may not read it",
            remedy=f"open {page}, accept the licence, then: export HF_TOKEN=<token>",
        )
    return MissingTool(
        f"cannot fetch {repository}",
        cause=f"the hub answered HTTP {status}",
        remedy="run the same command again later",
    )


def _unreachable(endpoint: str, cause: str) -> MissingTool:
    return MissingTool(
        f"cannot reach {endpoint}",
        cause=cause,
        remedy="connect to the network (or set HF_ENDPOINT) and run the same command again",
    )


def _no_hub(cause: str) -> MissingTool:
    return MissingTool(
        "what answered is no Hugging Face Hub",
        cause=cause,
        remedy="env | grep HF_ENDPOINT   # unset it, or name a hub",
    )
