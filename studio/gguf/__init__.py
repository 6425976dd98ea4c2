"""GGUF files, the format of llama.cpp: read, converted from safetensors, quantized. See ``docs/gguf.md``."""
