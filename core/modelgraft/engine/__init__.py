"""From a Plan to results: nodes loaded and run, side by side where it pays, cached, watched and stopped."""
