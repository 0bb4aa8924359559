"""The ground of HTTP: the envelope, the table of errors, the table of routes, the documents."""
