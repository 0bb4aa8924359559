"""PostgreSQL, Valkey and S3 as children of one command."""
