"""What makes committed data of this repository from its sources."""
