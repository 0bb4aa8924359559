"""Builds all objects of a process: resources from the settings, and services from the resources."""
