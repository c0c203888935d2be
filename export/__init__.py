"""From a trained student in hub layout to files a device runs: GGUF and ONNX, each checked against the original."""
