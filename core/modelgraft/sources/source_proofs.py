"""What is kept of a source, looked at before it is believed: every byte of it, or those that are read. What is broken is made again.

A source that is read whole is looked at in a thread, beside imports. A second start on exports reads a table of embeddings and a
tokenizer, and no more of a checkpoint than that is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from modelgraft.sources import archives, conversions, kept, seals
from modelgraft.sources.seals import Proof
from modelgraft.sources.source_view import SourceView
from modelgraft.sources.storage import digest_of


@dataclass(frozen=True, slots=True)
class Sealed:
    """Files under one seal: all of a folder, or one that has its own beside it.

    home  the folder that they are named from
    alone the only file; "": all of the folder
    """

    home: Path
    alone: str = ""

    def complaint(self, names: Collection[str] | None = None, *, quick: bool = False, within: range | None = None) -> str:
        """See `seals.complaint`."""
        if self.alone:
            return seals.complaint_of_file(self.home / self.alone, quick=quick, within=within)
        return seals.complaint(self.home, names, quick=quick, within=within)

    def of(self, path: Path, *, quick: bool = False, within: range | None = None) -> str:
        """What is wrong with a file of weights, if it is under this seal."""
        if not path.is_relative_to(self.home) or (self.alone and path != self.home / self.alone):
            return ""
        return self.complaint((path.relative_to(self.home).as_posix(),), quick=quick, within=within)

    def beside(self, weights: Collection[Path]) -> Collection[str]:
        """The names of all but files of weights. Raises BrokenSeal."""
        return () if self.alone else [name for name in seals.names_in(self.home) if self.home / name not in weights]


class Proving:
    """Looks at what is kept of a source when it is asked for. What is broken is made again, once, all of it, and is whole then.

    Each way of asking raises SourceError as making it again does.
    """

    def __init__(self, sealed: Sealed | None, weights: Collection[Path] = (), mend: Callable[[], object] | None = None) -> None:
        """weights: those of its files that hold tensors;  mend: makes all of it again;  sealed: None: there is nothing to prove."""
        self._sealed, self._weights, self._mend = sealed, weights, mend
        self._proof: Proof[str] | None = None
        self._is_whole = sealed is None

    def begin(self) -> None:
        """Begin to look at all of it in a thread."""
        if self._proof is None and not self._is_whole and self._sealed is not None:
            self._proof = Proof(self._sealed.complaint)

    def whole(self) -> None:
        """End when every byte is what was written."""
        if not self._is_whole:
            self.begin()
            assert self._proof is not None
            self._settle(self._proof.result())
            self._is_whole = True

    def beside_weights(self) -> None:
        """End when the files beside those of weights are what was written."""
        if not self._is_whole and self._sealed is not None:
            try:
                names = self._sealed.beside(self._weights)
            except seals.BrokenSeal as error:
                self._settle(str(error))
            else:
                self._settle(self._sealed.complaint(names) if names else "")

    def beginning(self, path: Path) -> None:
        """End when the first piece of a file of weights, which begins its header, is what was written; sizes are looked at as well."""
        if not self._is_whole and self._sealed is not None:
            self._settle(self._sealed.of(path, quick=True))

    def bytes_of(self, path: Path, place: range) -> None:
        """End when some bytes of a file of weights, whose beginning was looked at, are what was written."""
        if not self._is_whole and self._sealed is not None:
            self._settle(self._sealed.of(path, within=place))

    def _settle(self, complaint: str) -> None:
        if complaint and self._mend is not None:
            self._mend()
            self._is_whole = True


class _Meant(Proving):
    """A file of the user's that is to be the one with a digest: it is read whole, whatever is asked for."""

    def __init__(self, path: Path, sha256: str) -> None:
        super().__init__(None)
        self._found = Proof(partial(refuse_other, path, sha256))

    def begin(self) -> None:
        """It has begun."""

    def whole(self) -> None:
        """See Proving. Raises SourceError `hash-mismatch`."""
        self._found.result()

    def beside_weights(self) -> None:
        """See `whole`."""
        self.whole()

    def beginning(self, path: Path) -> None:  # noqa: ARG002 all of it is looked at
        """See `whole`."""
        self.whole()

    def bytes_of(self, path: Path, place: range) -> None:  # noqa: ARG002 all of it is looked at
        """See `whole`."""
        self.whole()


NO_PROOF = Proving(None)  # the files are the user's own, or were looked at just now


def of(view: SourceView, *, offline: bool) -> Proving:
    """What proves the files of a source, which stay there until the load around it ends."""
    if view.origin is not None and view.folder is not None:
        kept.hold(view.folder)
        return Proving(Sealed(view.folder), view.weight_files, partial(_convert_again, view, offline=offline))
    if view.file is not None and view.ref.kind == "archive":
        archives.hold(view.ref)
        return Proving(Sealed(view.file.parent, view.file.name), (view.file,), partial(archives.fetch, view.ref, offline=offline))
    if view.folder is not None and view.ref.kind == "archive":
        archives.hold(view.ref)
        member = archives.path_of(view.ref)
        again = partial(archives.fetch, view.ref, offline=offline, beside=conversions.NEIGHBOURS)
        return Proving(Sealed(member.parent, member.name), (member,), again)
    if view.file is not None and view.ref.sha256:
        return _Meant(view.file, view.ref.sha256)
    return NO_PROOF


def refuse_other(path: Path, sha256: str) -> None:
    """Raise SourceError `hash-mismatch` for a file that is not the one that the user means."""
    if sha256 and (found := digest_of(path)) != sha256:
        raise archives.hash_mismatch(str(path), found=found, wanted=sha256)


def _convert_again(view: SourceView, *, offline: bool) -> None:
    """Make the folder of a file again, from a file that is whole."""
    assert view.origin is not None and view.reader is not None  # noqa: PT018 as `of` has seen
    if view.ref.kind == "archive":
        archives.fetch(view.ref, offline=offline, beside=conversions.NEIGHBOURS)
    else:
        refuse_other(view.origin, view.ref.sha256)
    conversions.convert(view.origin, view.reader, sha256=view.ref.sha256)
