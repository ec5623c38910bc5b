"""EfficientNet image classifiers."""
