"""Triton kernels for Hopper. Import a module of this folder only where there is a CUDA device, or in tests.

Every kernel keeps one rule: the bits of a row are a function of that row and the weights, never of how many
rows there are, where the row stands, or how the work was tiled. So

- a sum over the inner dimension is split by its length alone, and the parts are added in ascending order;
- products run in one form: weights are the left operand, tokens the right one, and a larger batch only
  takes more columns per tile;
- every other sum that two launches may tile differently is an explicit tree;
- multiplications and additions outside of products are not contracted, unless the product is exact.

Tile sizes stand in `tuning`; no run time tuning chooses among kernels.
"""
