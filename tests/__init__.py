"""The tests of Lamson: laid out as lamson/ is, and besides the architecture, the public names, peers, and the repository itself."""
