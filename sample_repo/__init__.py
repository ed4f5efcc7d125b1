"""A small clinic as a record: its story, what replays it, and the result as a git bundle."""
