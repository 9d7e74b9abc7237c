"""A trained student on its way out: ONNX and INT8, a smaller vocabulary, timings, the Hub."""
