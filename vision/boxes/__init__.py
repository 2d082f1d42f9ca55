"""Pure box geometry on torch tensors."""
