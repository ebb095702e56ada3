"""Export, ONNX graphs, quantization, publishing."""
