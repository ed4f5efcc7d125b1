"""Several nodes of one record: a primary that pushes to a hub, replicas that follow it, and what to do when that changes."""
