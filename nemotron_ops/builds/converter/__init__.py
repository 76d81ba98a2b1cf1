"""llama.cpp's converter of safetensors: the source's own program, in an environment of its own.

environment    the converter's environment, made on demand, and its command line
pre_tokenizer  runs the converter with a pre-tokenizer that it is told; run by path inside the environment
"""
