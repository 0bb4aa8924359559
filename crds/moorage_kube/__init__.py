"""A small asynchronous Kubernetes client and an informer, shared by api and operator.

It works with plain dicts and imports nothing of ours but moorage_common.
"""
