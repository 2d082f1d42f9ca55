"""Options of command lines: each is one field of a dataclass. Nothing in here loads torch, so that --help is quick."""
