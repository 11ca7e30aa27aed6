"""How much of ONNX the emulator executes: ONNX's own operator tests, and a folder of exported models."""
