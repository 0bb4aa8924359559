"""The servers that `moorage up` starts: PostgreSQL, Valkey and an S3 server."""
