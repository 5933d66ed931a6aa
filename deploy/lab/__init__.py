"""A PostgreSQL cluster on one machine, in network namespaces: see README.md."""
