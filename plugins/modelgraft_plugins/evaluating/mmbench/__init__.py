"""MMBench: single-choice questions about pictures, each asked once for every rotation of its options."""
