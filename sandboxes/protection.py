"""What a mount namespace covers inside folders that may be written, kept up to date while files move."""

from __future__ import annotations

import os
from collections.abc import Iterator

from dsv4agent.sandboxes.masking import is_below
from dsv4agent.sandboxes.protocol import Policy
from dsv4agent.sandboxes.survey import Survey, git_folders, linked_main_folder, survey

Identity = tuple[int, int]


class Protection:
    """The repositories and secret files of one sandbox, as found when it opened.

    What programs make later is theirs. But the host, and git itself, may move or replace what was found:
    `refresh` looks for it again, by path and by identity.

    Attributes:
        secrets: Files to cover by an empty one.
        read_only: `.git` folders and files, and git folders that the files lead to.
        main_folders: Git folders outside, to which commits in linked worktrees go.
        complete: Whether all folders were looked at.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._roots = (policy.workspace, *policy.writable)
        self.secrets: tuple[str, ...] = ()
        self.read_only: tuple[str, ...] = ()
        self.main_folders: tuple[str, ...] = ()
        self.complete = True
        self._identities: dict[str, Identity | None] = {}

    def look(self) -> None:
        """Look through the folders. To be called once, before anything else runs; may take a moment."""
        if self._policy.mask_env_files or self._policy.protect_repositories:
            found = survey(self._roots)
            self.complete = found.complete
            self._take(found)
            # Outside folders are never looked for again: by then a program may have written `.git`.
            self.main_folders = tuple(sorted(set(self._main_folders(found))))

    def refresh(self) -> bool:
        """Return whether anything moved, was replaced or went, after finding it again.

        Programs can move none of it while it is covered; this costs one look at each file if nobody did.
        """
        if all(_identity(path) == identity for path, identity in self._identities.items()):
            return False
        known = set(self._identities.values()) - {None}
        found = survey(self._roots)

        def ours(path: str) -> bool:
            return path in self._identities or _identity(path) in known

        self._take(
            Survey(
                tuple(filter(ours, found.repositories)), tuple(filter(ours, found.secrets)), found.complete
            )
        )
        return True

    def _take(self, found: Survey) -> None:
        if self._policy.mask_env_files:
            self.secrets = found.secrets
        if self._policy.protect_repositories:
            self.read_only = tuple(sorted(set(self._inside(found))))
        paths = {*self._identities, *self.secrets, *self.read_only}
        self._identities = {path: _identity(path) for path in paths}

    def _inside(self, found: Survey) -> Iterator[str]:
        for repository in found.repositories:
            for path in (repository, *git_folders(repository)):
                inside = any(is_below(path, root) and path != root for root in self._roots)
                if inside and (path == repository or os.path.exists(os.path.join(path, "HEAD"))):
                    yield path

    def _main_folders(self, found: Survey) -> Iterator[str]:
        for repository in found.repositories:
            main = linked_main_folder(repository, self._roots)
            if main is not None:
                yield main


def _identity(path: str) -> Identity | None:
    try:
        result = os.lstat(path)
    except OSError:
        return None
    return result.st_dev, result.st_ino
