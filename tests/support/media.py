"""Record types for tests."""

from __future__ import annotations

from modelgraft.plugin import RecordType


def record_type(name, **more):
    """A medium whose records are mappings."""

    class Toy(RecordType):
        meaning = f"a {name}"

        def read(self, value, reading):
            if not isinstance(value, dict):
                raise reading.refused(value, f"a {name}")
            return dict(value)

        def accepts(self, value):
            return isinstance(value, dict)

        def example(self, index):
            return {"id": index}

    return type(name.title(), (Toy,), {"name": name, **more})()
