"""Programs that print measurements."""
