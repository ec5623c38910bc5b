"""The ONNX backend: exportable modules are exported once, proven equal to torch, and run by ONNX Runtime."""
