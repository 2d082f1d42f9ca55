"""Small helpers, and compatibility modules with upstream's names."""
