"""Ready-made stateless handlers. Name them in a project's `handlers`; nothing imports them."""
