"""What a bench found as one HTML page that needs nothing else: charts drawn as SVG here, tables, and the line that repeats each cell."""

from __future__ import annotations

from modelgraft_plugins.benching.page.document import LARGEST, page_of, write_page

__all__ = ["LARGEST", "page_of", "write_page"]
