"""The GPU path: weights in the kernels' layouts, pages on the device, one step for prefill and decoding.

Import a module of this folder only where there is a CUDA device, or in tests: it loads the kernels.
"""
