"""From text to Graph to SolvedGraph to Plan: what is known without weights. Of modelgraft it imports itself and dataclasses."""
