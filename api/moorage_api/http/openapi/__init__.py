"""`/openapi.json`: what FastAPI knows of the routes, completed with what only we know."""
