"""Lamson: to mail what a web framework is to HTTP.

Nothing is imported here, so that a program pays only for the rooms it enters. Where to begin: `lamson.routing` (decorators and the
router), `lamson.server` (what takes mail in), `lamson.relay` (what hands mail on), `lamson.view` (templates),
`lamson.database` (what is kept). The map of the house is docs/architecture.md.
"""

__version__ = "2.0.0"
