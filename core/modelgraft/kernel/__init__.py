"""From text to Graph to SolvedGraph to Plan: what is known without weights. It imports nothing of modelgraft outside itself."""
