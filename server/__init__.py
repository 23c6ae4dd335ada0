"""Dramatis, the cast of your AI team: personas for coding agents, behind one service layer."""
