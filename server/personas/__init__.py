"""Roles, the personas that have them, and the personas' files."""
