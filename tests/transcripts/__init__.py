"""SMTP conversations as text, and the player that holds them against a session or a port."""
