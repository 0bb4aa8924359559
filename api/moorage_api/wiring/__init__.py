"""The one place that builds things: resources from settings, services from resources."""
