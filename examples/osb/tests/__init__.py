"""Run by nosetests and by pytest, in the project's directory."""
