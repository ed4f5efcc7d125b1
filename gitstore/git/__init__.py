"""The record in git: the only room that speaks pygit2 or runs git."""
