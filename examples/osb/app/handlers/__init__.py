"""What happens when mail arrives. config/settings.py names the modules that are asked, in the order in which they are asked.

Each of them is a machine: its functions are the states that a sender can be in. A sender is in one state of each.
"""
