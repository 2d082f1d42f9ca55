"""Small helpers, and doors to names that scripts out there import."""
