"""What happens when mail arrives. config/settings.py names the modules that are asked."""
