"""The process that writes chat templates: a line of JSON in, a line of JSON out, until there are no more. See chat_rendering.py.

Run by path, so that it imports nothing but jinja2, from the folder that is named first; then come seconds, bytes, letters.
The names, filters and tags are those that templates of transformers may use.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any


def main() -> None:
    """Answer every line."""
    folder, seconds, memory, letters = sys.argv[1], *map(int, sys.argv[2:5])
    sys.path.append(folder)
    environment = make_environment()
    limit_memory(memory)
    for line in sys.stdin.buffer:
        limit_time(seconds)
        answer = written(environment, json.loads(line), letters)
        limit_time(0)
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def make_environment() -> Any:
    """The sandbox: no access to what Python objects are made of, nothing that a template is given can be changed."""
    from jinja2 import ext, nodes, sandbox, utils

    class Generation(ext.Extension):
        """`{% generation %}` marks what an assistant said, for training: here it is the text alone."""

        tags = {"generation"}  # noqa: RUF012 the type that jinja2 declares

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    class Names(utils.Namespace):
        """`namespace()`, of which no name begins with an underscore."""

        def __init__(*args: Any, **names: Any) -> None:  # without a name for itself: `self` may be one of the names
            for name in dict(*args[1:], **names):
                refuse_hidden(name)
            utils.Namespace.__init__(*args, **names)

        def __setitem__(self, name: str, value: Any) -> None:
            refuse_hidden(name)
            super().__setitem__(name, value)

    made = sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols])
    made.filters["tojson"] = to_json
    made.globals |= {"raise_exception": refuse, "strftime_now": now, "namespace": Names, "dict": Dicts()}
    return made


class Dicts:
    """`dict(...)` and `dict.fromkeys(...)`, and nothing else of the type."""

    def __call__(self, *args: Any, **entries: Any) -> dict[Any, Any]:
        """Make one."""
        return dict(*args, **entries)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """Make one of keys."""
        return dict.fromkeys(*args)


class RefusedError(Exception):
    """The template called raise_exception."""


def refuse(message: str) -> None:
    """End the template."""
    raise RefusedError(message)


def refuse_hidden(name: Any) -> None:
    """End the template for a name that leads into the inside of an object."""
    if isinstance(name, str) and name.startswith("_"):
        raise ValueError(f"a namespace has no name such as {name!r}")


def to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:  # noqa: FBT001 as templates call it
    """The filter `tojson`: plain JSON, not that of web pages."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def now(layout: str) -> str:
    """The date and time, of this machine's clock."""
    return datetime.now().strftime(layout)  # local time, as transformers gives it


def written(environment: Any, asked: dict[str, Any], letters: int) -> dict[str, str]:
    """The text, or why there is none."""
    try:
        pieces, length = [], 0
        for piece in environment.from_string(asked["template"]).generate(messages=asked["messages"], **asked["names"]):
            pieces.append(piece)
            length += len(piece)
            if length > letters:
                return {"broken": f"it gives more than {letters:,} letters"}
        return {"text": "".join(pieces)}
    except RefusedError as error:
        return {"refused": str(error)}
    except MemoryError:
        return {"broken": "it takes more memory than a template may have"}
    except Exception as error:  # noqa: BLE001 a template may fail in any way that an expression can
        return {"broken": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}


def limit_time(seconds: int) -> None:
    """End the process after so many seconds of computing, even within one call; 0 ends the limit."""
    if sys.platform != "win32":
        import signal

        signal.setitimer(signal.ITIMER_PROF, seconds)  # what it does when nobody handles it: end the process


def limit_memory(most: int) -> None:
    """Bound the memory of the process, where the system can."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
