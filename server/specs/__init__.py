"""Persona specs: versioned documents that say how a persona thinks and speaks."""
