"""Confirmation by reply: a secret goes to an address, and an answer that carries it proves that the address is its sender's.

This room is empty until its own issue. What will be here: `ConfirmationStorage`, `SQLAlchemyConfirmationStorage` and
`ConfirmationEngine`, as the public names describe them. Secrets will have 128 bits or more, be compared in constant time, expire, and
work once. It stands beside the handlers, which ask it; nothing below it knows that it exists.
"""
